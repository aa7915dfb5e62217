"""The connected client: C{echo}, C{connect}, L{EchoClient <udpecho.client.protocol.EchoClient>}."""
