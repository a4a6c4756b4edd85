package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	driver "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink/relational"
	"naru/internal/sink/sinktest"
)

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/mysql.md") }

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*Settings)
	}{
		{"", func(*Settings) {}},
		{"url: is missing, as in mysql://user@127.0.0.1:3306/database", func(s *Settings) { s.URL = "" }},
		{"url: must be mysql://user@host:port/database", func(s *Settings) { s.URL = "u:secret@tcp(h)/d" }},
		{"url: has a password in it", func(s *Settings) { s.URL = "mysql://u:secret@h/d" }},
		{"url: names no user", func(s *Settings) { s.URL = "mysql://h/d" }},
		{"url: names no database", func(s *Settings) { s.URL = "mysql://u@h" }},
		{"url: takes no parameters; encryption is set by tls", func(s *Settings) { s.URL = "mysql://u@h/d?password=secret" }},
		{`tls: "maybe" is neither verify nor insecure nor off`, func(s *Settings) { s.TLS = "maybe" }},
		{"has 65 characters, a name in MySQL has at most 64", func(s *Settings) { s.Table = strings.Repeat("é", 65) }},
		{`table: "t " ends with a space`, func(s *Settings) { s.Table = "t " }},
		{"that no name in MySQL has", func(s *Settings) { s.Mode, s.Key = relational.Upsert, []string{"😀"} }},
		{"key: is missing", func(s *Settings) { s.Mode = relational.Upsert }},
	} {
		s := defaults()
		s.URL, s.Table = "mysql://u@h/d", strings.Repeat("é", 64)
		c.change(s)
		if err := s.Validate(); c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestEncryption(t *testing.T) {
	for host, want := range map[string]string{"localhost": tlsOff, "127.0.0.1": tlsOff, "::1": tlsOff, "10.0.0.1": tlsVerify, "db.example.com": tlsVerify} {
		require.Equal(t, want, (&Settings{}).encryption(host))
		require.Equal(t, tlsInsecure, (&Settings{TLS: tlsInsecure}).encryption(host))
	}
}

func TestPasswordIsMissing(t *testing.T) {
	s := defaults()
	s.URL, s.Table, s.PasswordEnv = "mysql://u@127.0.0.1:1/d", "t", "SHOP_PASSWORD"
	sinktest.NoPassword(t, s)
}

func TestInsert(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 30, 0, 120000000, time.FixedZone("", 3600))
	columns := []event.Column{{Name: "a"}, {Name: "b`"}, {Name: "c"}, {Name: "d"}, {Name: "e"}, {Name: "f"}, {Name: "g", Type: event.DateColumn}, {Name: "h"}}
	d := &database{set: &Settings{}, table: quoteName("s.t")}
	rows := d.AppendRow(nil, columns, []any{nil, true, int64(-1), 1e6, "a'b\\\n\x00é\xff", at, at, json.RawMessage(`{"a":"\u0000"}`)})
	require.Equal(t, "INSERT INTO `s`.`t` (`a`, `b```, `c`, `d`, `e`, `f`, `g`, `h`) VALUES "+
		`(NULL,true,-1,1e+06,'a\'b\\`+"\n"+`\0é`+"\uFFFD"+`','2026-03-01 11:30:00.120000','2026-03-01','{"a":"\\u0000"}')`, d.insert(columns, rows))
	d.set.Mode, d.set.Key = relational.Upsert, []string{"A", "c"}
	require.Equal(t, "INSERT INTO `s`.`t` (`a`, `d`) VALUES (1,2) ON DUPLICATE KEY UPDATE `d` = VALUES(`d`)",
		d.insert([]event.Column{{Name: "a"}, {Name: "d"}}, []byte("(1,2),")))
	require.Equal(t, "INSERT INTO `s`.`t` (`a`) VALUES (1) ON DUPLICATE KEY UPDATE `A` = `A`", d.insert([]event.Column{{Name: "a"}}, []byte("(1),")))
}

func TestClassify(t *testing.T) {
	of := func(code uint16, state string) error {
		return fmt.Errorf("write: %w", &driver.MyError{Code: code, State: state, Message: "m"})
	}
	for code, state := range map[uint16]string{1048: "23000", 1062: "23000", 1264: "22003", 1406: "22001", 1292: "22007", 1265: "01000", 1366: "HY000", 4025: "23000", 3819: "HY000", 1644: "45000"} {
		var bad *relational.RowError
		require.ErrorAs(t, refusal(of(code, state)), &bad, code)
		require.Equal(t, fmt.Sprintf("m (%d)", code), bad.Error())
	}
	for code, state := range map[uint16]string{1205: "HY000", 1213: "40001", 1053: "08S01", 1040: "08004", 1290: "HY000", 1927: "70100", 1317: "70100", 1114: "HY000"} {
		require.NoError(t, refusal(of(code, state)), code)
		require.True(t, fault.IsTransient(classify(of(code, state))), code)
	}
	for code, state := range map[uint16]string{1045: "28000", 1049: "42000", 1142: "42000", 1146: "42S02", 1054: "42S22", 1364: "HY000"} {
		require.NoError(t, refusal(of(code, state)), code)
		require.False(t, fault.IsTransient(classify(of(code, state))), code)
		require.NotEmpty(t, fault.HintOf(classify(of(code, state))), code)
	}
	require.True(t, fault.IsTransient(classify(errors.New("connection reset by peer"))))
	require.NoError(t, refusal(errors.New("connection reset by peer")))
}
