# Change the faults of: udpecho proxy 127.0.0.1:9000 127.0.0.1:1234 --control 8474
api=${API:-http://127.0.0.1:8474}
json="Content-Type: application/json"

# Replies are late by 100 ms, give or take 10; one request in ten is lost.
curl -sf -H "$json" -d '{"type": "latency", "attributes": {"latency": 100, "jitter": 10}}' $api/proxies/proxy/toxics
curl -sf -H "$json" -d '{"type": "loss", "stream": "upstream", "toxicity": 0.1}' $api/proxies/proxy/toxics

# Half of the requests are lost now, and replies come at once.
curl -sf -X PATCH -H "$json" -d '{"toxicity": 0.5}' $api/proxies/proxy/toxics/loss_upstream
curl -sf -X DELETE $api/proxies/proxy/toxics/latency_downstream

# The server is down, and up again.
curl -sf -H "$json" -d '{"enabled": false}' $api/proxies/proxy
curl -sf -H "$json" -d '{"enabled": true}' $api/proxies/proxy

# One more proxy, on any free port; what there is; and no faults any more.
curl -sf -H "$json" -d '{"name": "dns", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:53"}' $api/proxies
curl -sf $api/proxies
curl -sf -X POST $api/reset
