package columnar

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

func attrs(pairs ...string) []event.Attr {
	var a []event.Attr
	for i := 0; i < len(pairs); i += 2 {
		a = append(a, event.Attr{Name: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return a
}

func TestEnvelope(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	e := x.at(`{"a":1}`)
	e.Subject, e.Time = []byte("s\xff"), time.Date(2026, 2, 28, 23, 59, 59, 999_999_999, time.FixedZone("", 3600))
	require.NoError(t, x.b.Append(e, testLog, 3))
	other := event.Incarnation{9}
	require.NoError(t, x.b.Append(x.at(`{}`), other, 0))
	x.commit()
	require.Equal(t, []string{
		`_id="id-1" _type="t" _source="test" _subject="s` + "\uFFFD" + `" _time=2026-02-28T22:59:59.999999Z _received_at=2026-03-01T12:00:00Z _log="01020304-0506-0708-090a-0b0c0d0e0f10" _partition=3 _offset=1`,
		`_id="id-2" _type="t" _source="test" _time=2026-03-01T12:00:00Z _received_at=2026-03-01T12:00:00Z _log="09000000-0000-0000-0000-000000000000" _partition=0 _offset=2`,
	}, x.rows(ColumnID, ColumnType, ColumnSource, ColumnSubject, ColumnTime, ColumnReceivedAt, ColumnLog, ColumnPartition, ColumnOffset))
	require.Len(t, x.files, 2, "one for each day")
	require.Equal(t, []PartitionValue{{Long: 20512}}, x.files[0].Partition)
	require.Equal(t, []PartitionValue{{Long: 20513}}, x.files[1].Partition)
}

func TestRowTime(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name           string
		time, received time.Time
		want           time.Time
		clamped        bool
	}{
		{"own time", received.Add(-time.Minute), received, received.Add(-time.Minute), false},
		{"none", time.Time{}, received, received, false},
		{"24 h ahead", received.Add(day), received, received.Add(day), false},
		{"more than 24 h ahead", received.Add(day + 1), received, received, true},
		{"far past", time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), received, time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), false},
		{"before the calendar", time.Date(0, 12, 31, 23, 0, 0, 0, time.UTC), received, received, true},
		{"far before the calendar", time.Unix(-1<<60, 0), received, received, true},
		{"far ahead", time.Unix(1<<60, 0), received, received, true},
		{"receipt before the calendar", time.Time{}, time.Unix(-1<<60, 0), time.Unix(minSecond, 0), false},
		{"receipt behind the calendar", time.Time{}, time.Unix(1<<60, 0), time.Unix(maxSecond, 0), false},
		{"nothing known", time.Time{}, time.Time{}, time.Unix(0, 0), false},
		{"no receipt", received, time.Time{}, received, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			micros, clamped := rowTime(&event.Event{Time: c.time, ReceivedAt: c.received})
			require.Equal(t, c.want.UTC(), time.UnixMicro(micros).UTC())
			require.Equal(t, c.clamped, clamped)
			x := newTable(t, NewSchema(), Options{})
			x.append(&event.Event{Time: c.time, ReceivedAt: c.received})
			x.commit()
			require.Len(t, x.files, 1)
			require.Equal(t, []PartitionValue{{Long: floor(micros, microsPerDay)}}, x.files[0].Partition)
		})
	}
	require.EqualValues(t, -1, floor(-1, microsPerDay))
	require.EqualValues(t, -1, floor(-microsPerDay, microsPerDay))
	require.EqualValues(t, -2, floor(-microsPerDay-1, microsPerDay))
	require.EqualValues(t, 0, floor(0, microsPerDay))
	require.EqualValues(t, 1, floor(microsPerDay, microsPerDay))
}

func TestExtensions(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1}`)
	e := x.at(`{"b":1}`)
	e.Extensions = attrs("traceparent", `00-"x"`, "dataschema", "s\xff")
	x.append(e)
	x.commit()
	require.Equal(t, []string{`a=1`, `b=1 _extensions="{\"traceparent\":\"00-\\\"x\\\"\",\"dataschema\":\"s` + "\uFFFD" + `\"}"`}, x.rows())
	last := x.schema.Fields[len(x.schema.Fields)-1]
	require.Equal(t, Field{ID: 13, Name: "_extensions", Kind: JSON}, last)
}

func TestMediaTypes(t *testing.T) {
	for _, c := range []struct{ contentType, data, row string }{
		{"", `{"a":1}`, "a=1"},
		{"application/json", `{"a":1}`, "a=1"},
		{"Application/JSON; charset=utf-8", `{"a":1}`, "a=1"},
		{"application/vnd.x+json", `{"a":1}`, "a=1"},
		{"text/json", `{"a":1}`, "a=1"},
		{"text/plain", `{"a":1}`, `data="{\"a\":1}"`},
		{"text/plain", "a\xff\n", "data=\"a\uFFFD\\n\""},
		{"application/xml", "<a/>", `data="\u003ca/\u003e"`},
		{"application/octet-stream", "\x00\x01\xff", `data_base64="AAH/"`},
		{"image/png", "PNG", `data_base64="UE5H"`},
		{"application/json", "no json", `data="no json"`},
		{"application/json", "\xff", `data_base64="/w=="`},
	} {
		t.Run(c.contentType+" "+c.data, func(t *testing.T) {
			x := newTable(t, NewSchema(), Options{})
			e := x.at(c.data)
			e.ContentType = []byte(c.contentType)
			x.append(e)
			x.commit()
			require.Equal(t, []string{c.row}, x.rows())
		})
	}
}

func TestOpaqueDataMeetsOtherColumn(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"data":1}`)
	e := x.at("hello")
	e.ContentType = []byte("text/plain")
	x.append(e)
	x.commit()
	require.Equal(t, []string{"data=1", rescue(`{"data":"hello"}`)}, x.rows())
}

func TestRejected(t *testing.T) {
	x := newTable(t, NewRejectedSchema(), Options{})
	e := x.at("\xff{\"a\":1}")
	e.ContentType = []byte("application/json")
	e.Refusal = &event.Rejection{Index: 4, ID: "i", Type: "ty", Stream: "events", Reason: event.NotJSON, Detail: "line 4"}
	x.append(e)
	e = x.at(`{"a":1}`)
	e.Extensions = attrs("x", "y")
	x.append(e)
	e = x.at(`{"a":"1"}`)
	e.Contract = event.Contract{ID: []byte("pages"), Version: []byte("1.0.0"), Hash: []byte("0a")}
	e.Refusal = &event.Rejection{Reason: event.BadContract, Rule: "type", Path: "$.a"}
	x.append(e)
	x.commit()
	require.Equal(t, []string{
		`reason="not_json" detail="line 4" stream="events" event_type="ty" event_id="i" item_index=4 original=ff7b2261223a317d content_type="application/json"`,
		`original=7b2261223a317d extensions="{\"x\":\"y\"}"`,
		`reason="contract" item_index=0 original=7b2261223a2231227d rule="type" path="$.a" contract="pages" contract_version="1.0.0" contract_hash="0a"`,
	}, x.rows())
	require.True(t, x.schema.Continues(NewRejectedSchema()))
	require.Equal(t, "_id _type _source _subject _time _received_at _log _partition _offset reason detail stream event_type event_id item_index original content_type "+
		"rule path contract contract_version contract_hash extensions sent event_time", names(x.schema))
}

// The event's time as it was sent stands beside _time where that does not say it.
func TestRejectedExactTime(t *testing.T) {
	for _, c := range []struct{ sent, want string }{
		{"", ""},
		{"2026-01-02T03:04:05Z", ""},
		{"2026-01-02T03:04:05.123456Z", ""},
		{"2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456789Z"},
		{"2999-01-02T03:04:05Z", "2999-01-02T03:04:05Z"},
		{"0000-01-02T03:04:05Z", "0000-01-02T03:04:05Z"},
		{"receipt", "receipt"},
	} {
		e := event.Event{ReceivedAt: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
		receipt := e.ReceivedAt.Format(time.RFC3339Nano)
		var err error
		if c.sent != "" {
			e.Time, err = time.Parse(time.RFC3339Nano, strings.Replace(c.sent, "receipt", receipt, 1))
		}
		require.NoError(t, err)
		require.Equal(t, strings.Replace(c.want, "receipt", receipt, 1), string(exactTime(&e)), c.sent)
	}
}

// A table that somebody gave a column of that name keeps it; one that somebody
// dropped is not made again.
func TestRejectedColumnsThatCameLater(t *testing.T) {
	s := NewRejectedSchema()
	s.add("Rule", "", String)
	s.Fields[len(s.Fields)-1].Kind = Foreign
	s.add("path", "", String)
	s.Fields[len(s.Fields)-1].Dropped = true
	x := newTable(t, s, Options{})
	e := x.at(`{}`)
	e.Contract = event.Contract{ID: []byte("pages")}
	e.Refusal = &event.Rejection{Reason: event.BadContract, Rule: "type", Path: "$.a"}
	x.append(e)
	x.commit()
	require.Equal(t, []string{`reason="contract" item_index=0 original=7b7d contract="pages"`}, x.rows())
	require.NoError(t, x.schema.Clone().Adopt(x.schema.Columns()[:17], 22), "they may be dropped")
	require.Error(t, x.schema.Clone().Adopt(x.schema.Columns()[:16], 22))
}

func TestViolations(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1}`)
	e := x.at(`{"a":"x","_violations":2}`)
	e.Violations = []byte(`[{"rule":"type","path":"$.a","detail":"\"x\""}]`)
	x.append(e)
	x.commit()
	require.Equal(t, []string{`a=1`, rescue(`{"a":"x","_violations":2}`) + ` _violations="[{\"rule\":\"type\",\"path\":\"$.a\",\"detail\":\"\\\"x\\\"\"}]"`}, x.rows())
	require.Equal(t, Field{ID: 12, Name: "_violations", Kind: JSON}, x.schema.Fields[len(x.schema.Fields)-1])

	// Dropped: they are kept in _rescued.
	s := x.schema.Clone()
	s.Fields[len(s.Fields)-1].Dropped = true
	x = newTable(t, s, Options{})
	x.append(e)
	x.commit()
	require.Equal(t, []string{rescue(`{"a":"x","_violations":2,"_violations\\2":[{"rule":"type","path":"$.a","detail":"\"x\""}]}`)}, x.rows())
}

func TestWhole(t *testing.T) {
	x := newTable(t, NewWholeSchema(), Options{})
	x.send(`{"a": {"b":"\ud83d"}}`, `no json`, "\xff", `[1]`, ``)
	e := x.at("text")
	e.ContentType, e.Extensions = []byte("text/plain"), attrs("x", "y")
	x.append(e)
	x.commit()
	require.Equal(t, []string{
		`data="{\"a\": {\"b\":\"\\ufffd\"}}"`, `data="\"no json\""`, `data="{\"data_base64\":\"/w==\"}"`, `data="[1]"`, "",
		`data="\"text\"" _extensions="{\"x\":\"y\"}"`,
	}, x.rows())
}

func names(s *Schema) string {
	text := ""
	for i, f := range s.Fields {
		if i > 0 {
			text += " "
		}
		text += f.Name
	}
	return text
}
