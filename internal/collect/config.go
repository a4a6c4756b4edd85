// Package collect is what all front doors share: limits, the request on its
// way from a body to the log, and the answer. A door reads its protocol and
// hands over events and rejections; here they become record batches that go
// into one atomic append.
package collect

import (
	"fmt"

	"naru/internal/quantity"
	"naru/internal/web"
)

// Config holds the limits of the front doors and the fields that carry an
// event's time and id. Sizes and times have the defaults of DOOR.md.
type Config struct {
	web.Config `yaml:",inline"`

	Body         quantity.Bytes `yaml:"body"`         // a request's body as sent
	Decompressed quantity.Bytes `yaml:"decompressed"` // the same, inflated
	Event        quantity.Bytes `yaml:"event"`        // one event; a larger one is refused alone
	InFlight     quantity.Bytes `yaml:"in_flight"`    // all bodies in memory together
	Events       int            `yaml:"events"`       // in one request
	Streams      int            `yaml:"streams"`      // that clients may make by posting to them
	Partitions   int32          `yaml:"partitions"`   // of a stream; the key's hash chooses

	// TimeField is the top-level field that holds a plain event's time. Empty:
	// the first of time, timestamp, ts, @timestamp, event_time that parses.
	TimeField string `yaml:"time_field"`
	// IDField is the top-level field that holds a plain event's id. Empty: none
	// does, and naru makes one.
	IDField string `yaml:"id_field"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Config:       web.DefaultConfig(),
		Body:         32 * quantity.MiB,
		Decompressed: 64 * quantity.MiB,
		Event:        1 * quantity.MiB,
		InFlight:     64 * quantity.MiB,
		Events:       100_000,
		Streams:      256,
		Partitions:   1,
	}
}

// Validate finds values that cannot work.
func (c Config) Validate() error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	const largest = quantity.GiB
	switch {
	case c.Body < quantity.KiB || c.Body > largest:
		return fmt.Errorf("body: %s is not between 1KiB and 1GiB", c.Body)
	case c.Decompressed < c.Body || c.Decompressed > largest:
		return fmt.Errorf("decompressed: %s is not between body (%s) and 1GiB", c.Decompressed, c.Body)
	case c.Event < 64 || c.Event > c.Decompressed || c.Event > 64*quantity.MiB:
		return fmt.Errorf("event: %s is not between 64B and decompressed (%s), at most 64MiB", c.Event, c.Decompressed)
	case c.InFlight < c.Decompressed:
		return fmt.Errorf("in_flight: %s is below decompressed (%s), so the largest body would never fit", c.InFlight, c.Decompressed)
	case c.Events < 1 || c.Events > 10_000_000:
		return fmt.Errorf("events: %d is not between 1 and 10000000", c.Events)
	case c.Streams < 1:
		return fmt.Errorf("streams: %d is below 1", c.Streams)
	case c.Partitions < 1 || c.Partitions > 1024:
		return fmt.Errorf("partitions: %d is not between 1 and 1024", c.Partitions)
	case len(c.TimeField) > 255:
		return fmt.Errorf("time_field: a name of %d bytes, at most 255", len(c.TimeField))
	case len(c.IDField) > 255:
		return fmt.Errorf("id_field: a name of %d bytes, at most 255", len(c.IDField))
	}
	return nil
}
