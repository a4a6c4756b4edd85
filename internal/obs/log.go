package obs

import (
	"fmt"
	"io"
	"log/slog"
)

// LogConfig says how the process logs.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // text or json
}

// DefaultLogConfig logs info and above as text.
func DefaultLogConfig() LogConfig { return LogConfig{Level: "info", Format: "text"} }

// Validate finds values that cannot work.
func (c LogConfig) Validate() error {
	if _, err := c.level(); err != nil {
		return err
	}
	if c.Format != "text" && c.Format != "json" {
		return fmt.Errorf("format: %q is neither text nor json", c.Format)
	}
	return nil
}

func (c LogConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("level: %q is none of debug, info, warn, error", c.Level)
}

// NewLogger makes the logger that the whole process uses. It is passed on, never global.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, fmt.Errorf("set up log: %w", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("set up log: %w", c.Validate())
}

// Discard is a logger for tests that are not about logs.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
