package web

import (
	"fmt"
	"time"

	"naru/internal/quantity"
)

// Config bounds what connections may cost.
type Config struct {
	Headers       quantity.Bytes    `yaml:"headers"`        // request line and headers
	HeaderTimeout quantity.Duration `yaml:"header_timeout"` // from the first byte of a request to the end of its headers
	StallTimeout  quantity.Duration `yaml:"stall_timeout"`  // longest pause within a body or an answer
	IdleTimeout   quantity.Duration `yaml:"idle_timeout"`   // between two requests of a connection
	// MinRate is what a body must bring a second on average, once its first
	// StallTimeout is over: sending a byte now and then holds nothing for ever.
	MinRate     quantity.Bytes `yaml:"min_rate"`
	Connections int            `yaml:"connections"` // open at a time; further ones wait
}

// DefaultConfig returns the limits of DOOR.md.
func DefaultConfig() Config {
	return Config{
		Headers:       32 * quantity.KiB,
		HeaderTimeout: quantity.Duration(10 * time.Second),
		StallTimeout:  quantity.Duration(30 * time.Second),
		IdleTimeout:   quantity.Duration(120 * time.Second),
		MinRate:       4 * quantity.KiB,
		Connections:   10000,
	}
}

// Validate finds values that cannot work.
func (c Config) Validate() error {
	const second = quantity.Duration(time.Second)
	switch {
	case c.Headers < 4*quantity.KiB || c.Headers > quantity.MiB:
		return fmt.Errorf("headers: %s is not between 4KiB and 1MiB", c.Headers)
	case c.HeaderTimeout < second:
		return fmt.Errorf("header_timeout: %s is below 1s", c.HeaderTimeout)
	case c.StallTimeout < second:
		return fmt.Errorf("stall_timeout: %s is below 1s", c.StallTimeout)
	case c.IdleTimeout < second:
		return fmt.Errorf("idle_timeout: %s is below 1s", c.IdleTimeout)
	case c.MinRate < 1:
		return fmt.Errorf("min_rate: %s is below 1B a second", c.MinRate)
	case c.Connections < 1:
		return fmt.Errorf("connections: %d is below 1", c.Connections)
	}
	return nil
}
