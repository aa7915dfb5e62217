// The Go echo server that udpecho replaces, in its shape: one loop, a deadline for each write, a line for each datagram.
//
//	seed HOST PORT [quiet]
package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

const timeout = 5 * time.Second

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: seed HOST PORT [quiet]")
		os.Exit(2)
	}
	quiet := len(os.Args) > 3 && os.Args[3] == "quiet"
	connection, err := net.ListenPacket("udp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buffer := make([]byte, 65535)
	for {
		n, address, err := connection.ReadFrom(buffer)
		if err != nil {
			continue
		}
		if !quiet {
			fmt.Printf("packet-received: bytes=%d from=%s\n", n, address.String())
		}
		if err := connection.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			continue
		}
		n, err = connection.WriteTo(buffer[:n], address)
		if err != nil {
			continue
		}
		if !quiet {
			fmt.Printf("packet-written: bytes=%d to=%s\n", n, address.String())
		}
	}
}
