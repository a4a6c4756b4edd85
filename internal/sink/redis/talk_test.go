package redis

import (
	"net"
	"time"
)

// talk is a connection to a server that says text and hangs up.
func talk(text string) (c *conn, done func()) {
	here, there := net.Pipe()
	go func() {
		_, _ = there.Write([]byte(text))
		_ = there.Close()
	}()
	return newConn(here, time.Second), func() { _ = here.Close() }
}
