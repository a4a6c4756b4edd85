package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink/relational"
	"naru/internal/sink/sinktest"
)

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/postgres.md") }

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"": func(*Settings) {},
		"url: is missing, as in postgres://user@127.0.0.1:5432/database":                          func(s *Settings) { s.URL = "" },
		"url: must be postgres://user@host:port/database":                                         func(s *Settings) { s.URL = "mysql://u:secret@h/d" },
		"url: has a password in it: name the environment variable that holds it by password_env":  func(s *Settings) { s.URL = "postgres://u:secret@h/d" },
		"url: has a password in it: name the environment variable that holds it by password_env ": func(s *Settings) { s.URL = "postgres://u@h/d?password=secret" },
		"sslmode is invalid": func(s *Settings) { s.URL = "postgres://u@h/d?sslmode=sometimes" },
		"table: is missing: the table to write, as in orders or sales.orders": func(s *Settings) { s.Table = "" },
		`table: "a.b.c" has more than one dot: write schema.table`:            func(s *Settings) { s.Table = "a.b.c" },
		"table: a name is empty":                                                                  func(s *Settings) { s.Table = "a." },
		"has 64 bytes, a name in PostgreSQL has at most 63":                                       func(s *Settings) { s.Table = strings.Repeat("é", 32) },
		`mode: "replace" is neither append nor upsert`:                                            func(s *Settings) { s.Mode = "replace" },
		"key: is missing: the columns by which mode upsert finds the row to replace, as in [_id]": func(s *Settings) { s.Mode = "upsert" },
		"key: is of mode upsert alone: set mode: upsert, or leave the key out":                    func(s *Settings) { s.Key = []string{"a"} },
		"key: names a twice": func(s *Settings) { s.Mode, s.Key = "upsert", []string{"a", "a"} },
		"row_key: \"" + strings.Repeat("é", 32) + "\" has 64 bytes":      func(s *Settings) { s.RowKey = strings.Repeat("é", 32) },
		"row_key: a is a column of key, and each row has one of its own": func(s *Settings) { s.Mode, s.Key, s.RowKey = "upsert", []string{"a"}, "a" },
		"timeout: must be more than 0s":                                  func(s *Settings) { s.Timeout = 0 },
	} {
		s := defaults()
		s.URL, s.Table = "postgres://u@h/d", "public.t"
		change(s)
		if err := s.Validate(); want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, strings.TrimSpace(want))
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

// Two sinks with one row_key in one table are refused by check.
func TestOwner(t *testing.T) {
	var o interface{ Owns(pipeline string) string } = &Settings{URL: "postgres://ana@db/shop", Settings: relational.Settings{Table: "orders", RowKey: "_key"}}
	require.Equal(t, "row_key _key of table orders in db/shop", o.Owns("p"))
}

func TestPasswordIsMissing(t *testing.T) {
	s := defaults()
	s.URL, s.Table, s.PasswordEnv = "postgres://u@127.0.0.1:1/d", "t", "SHOP_PASSWORD"
	sinktest.NoPassword(t, s)
}

func TestAppendRow(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 30, 0, 120000000, time.FixedZone("", 3600))
	columns := []event.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "e"}, {Name: "f"}, {Name: "g", Type: event.DateColumn}, {Name: "h"}, {Name: "i"}}
	got := string((&database{}).AppendRow(nil, columns, []any{nil, true, int64(-1), 1e6, "a\tb\\\n\r\\N\x00é\xff", at, at, json.RawMessage("{\"a\":\"\\u0000\"}"), 1e300}))
	require.Equal(t, "\\N\ttrue\t-1\t1000000\ta\\tb\\\\\\n\\r\\\\N\x00é\uFFFD\t2026-03-01T11:30:00.12Z\t2026-03-01\t{\"a\":\"\\\\u0000\"}\t1e+300\n", got)
}

func TestClassify(t *testing.T) {
	of := func(code string) error { return fmt.Errorf("write: %w", &pgconn.PgError{Code: code, Message: "m"}) }
	for _, code := range []string{"22021", "22P05", "22P02", "22001", "23505", "23502", "23514", "44000", "54000", "P0001"} {
		var bad *relational.RowError
		require.ErrorAs(t, refusal(of(code)), &bad, code)
		require.Equal(t, "m ("+code+")", bad.Error())
	}
	for _, code := range []string{"08006", "57P01", "57P03", "57014", "53100", "53300", "40001", "40P01", "55P03", "25006", "58030"} {
		require.NoError(t, refusal(of(code)), code)
		require.True(t, fault.IsTransient(classify(of(code))), code)
	}
	for _, code := range []string{"42P01", "42501", "28P01", "3D000", "42P10", "42703"} {
		require.NoError(t, refusal(of(code)), code)
		require.False(t, fault.IsTransient(classify(of(code))), code)
		require.NotEmpty(t, fault.HintOf(classify(of(code))), code)
	}
	require.True(t, fault.IsTransient(classify(errors.New("connection reset by peer"))))
	require.NoError(t, refusal(errors.New("connection reset by peer")))
}
