// The echo server of Node's dgram: dgram.js HOST PORT.
"use strict";

const dgram = require("node:dgram");

const [host, port] = process.argv.slice(2);
const socket = dgram.createSocket("udp4");
socket.on("message", (payload, peer) => socket.send(payload, peer.port, peer.address));
socket.bind(Number(port), host);
