package contract

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const columnsText = `apiVersion: v3.1.0
kind: DataContract
id: c
version: 1.0.0
status: active
schema:
  - name: order
    properties:
%s
`

func shapeText(t *testing.T, properties string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(properties) {
		lines = append(lines, "      "+strings.TrimRight(line, "\n"))
	}
	set, problems := Compile([]File{{Name: "c.yaml", Data: fmt.Appendf(nil, columnsText, strings.Join(lines, "\n"))}})
	if problems != nil {
		t.Fatal(problems)
	}
	var out []string
	if s := set.Contracts[0].Shape(); s != nil {
		for _, c := range s.Columns {
			one := c.Path + ":" + c.Kind
			if c.UTC {
				one += "!"
			}
			out = append(out, one)
		}
	}
	for _, f := range set.Contracts[0].Fields {
		if f.Column != "" && !strings.Contains(" "+strings.Join(out, " "), " "+f.Path+":"+f.Column) {
			t.Errorf("field %s says column %s", f.Path, f.Column)
		}
	}
	return strings.Join(out, " ")
}

func TestColumns(t *testing.T) {
	for _, c := range []struct{ properties, want string }{
		{"- {name: a, logicalType: string}\n- {name: b, logicalType: integer}\n- {name: c, logicalType: number}\n- {name: d, logicalType: boolean}", "a:string b:long c:double d:bool"},
		{"- {name: a, logicalType: date}\n- {name: b, logicalType: timestamp}\n- {name: c, logicalType: time}", "a:date b:timestamptz c:string"},
		{"- {name: a}\n- {name: b, logicalType: object}", ""},
		{"- {name: a, logicalType: object, properties: [{name: b.c, logicalType: date}, {name: d, properties: [{name: e, logicalType: integer}]}]}", `a.b\.c:date a.d.e:long`},
		{"- {name: a, logicalType: array}\n- {name: b, logicalType: array, items: {logicalType: integer}}\n- {name: c, logicalType: array, items: {logicalType: timestamp}}", "b:list<long> c:list<string>"},
		{"- {name: a, logicalType: array, items: {logicalType: object}}\n- {name: b, logicalType: array, items: {logicalType: array, items: {logicalType: string}}}\n- {name: c, logicalType: array, items: {name: x}}", "a:json b:json"},
		{"- {name: a, logicalType: date, physicalType: VARCHAR(10)}\n- {name: b, logicalType: timestamp, physicalType: text}\n- {name: c, logicalType: timestamp, physicalType: timestamptz}", "a:string b:string c:timestamptz"},
		{"- {name: a, logicalType: integer, physicalType: varchar}\n- {name: b, logicalType: number, physicalType: \"DECIMAL(9,2)\"}", "a:long b:double"},
		{"- {name: a, logicalType: timestamp, logicalTypeOptions: {timezone: false}}\n- {name: b, logicalType: timestamp, logicalTypeOptions: {defaultTimezone: UTC}}\n- {name: c, logicalType: timestamp, logicalTypeOptions: {defaultTimezone: Asia/Seoul}}", "a:string b:timestamptz! c:string"},
		{"- {name: a, logicalType: timestamp, logicalTypeOptions: {format: yyyy-MM-dd HH:mm:ss}}\n- {name: b, logicalType: date, logicalTypeOptions: {format: dd.MM.yyyy}}", "a:string b:string"},
		{"- {name: a, logicalType: integer, customProperties: [{property: naru.pii, value: hash}]}\n- {name: b, logicalType: date, customProperties: [{property: naru.pii, value: drop}]}", "a:string"},
		{"- {name: a, logicalType: object, customProperties: [{property: naru.pii, value: hash}], properties: [{name: b, logicalType: integer}]}", "a:string"},
	} {
		if got := shapeText(t, c.properties); got != c.want {
			t.Errorf("%s\ngives %s\nwant  %s", c.properties, got, c.want)
		}
	}
}

// What passes a contract fits its column, and gives the moment that Go's reader gives.
func TestMicros(t *testing.T) {
	for _, text := range []string{"2026-01-31T09:00:00Z", "2026-01-31 09:00:00.5+09:00", "1969-12-31t23:59:59.999999z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2000-02-29T12:00:00-12:30"} {
		got, ok := Micros([]byte(text), false)
		want, err := time.Parse(time.RFC3339Nano, strings.ToUpper(strings.Replace(text, " ", "T", 1)))
		if err != nil || !ok || got != want.UnixMicro() {
			t.Errorf("%s gives %d, %v: want %d, %v", text, got, ok, want.UnixMicro(), err)
		}
	}
	for _, text := range []string{"", "2026-01-31", "2026-01-31T09:00:00", "2026-02-30T09:00:00Z", "0000-06-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2026-01-31T09:00:00Zx"} {
		if got, ok := Micros([]byte(text), false); ok {
			t.Errorf("%q gives %d", text, got)
		}
	}
	if got, ok := Micros([]byte("1970-01-01T00:00:01"), true); !ok || got != 1e6 {
		t.Errorf("without an offset: %d, %v", got, ok)
	}
	for text, want := range map[string]int32{"1970-01-02": 1, "1969-12-31": -1, "0001-01-01": -719162, "9999-12-31": 2932896} {
		if got, ok := Days([]byte(text)); !ok || got != want {
			t.Errorf("%s gives %d, %v: want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"0000-12-31", "2026-13-01", "2026-01-31T00:00:00Z"} {
		if got, ok := Days([]byte(text)); ok {
			t.Errorf("%q gives %d", text, got)
		}
	}
}

// The short way gives what the long one gives.
func FuzzMicros(f *testing.F) {
	for _, text := range []string{"2026-01-31T09:00:00Z", "2026-01-31T09:00:00.1234567Z", "2026-02-29T09:00:00Z", "2026-01-31T09:00:00.Z", "2026-01-31T09:00:60Z", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "20x6-01-31T09:00:00Z"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		short, ok := plainMicros(text)
		if !ok {
			return
		}
		c, long := readTime(rfcTimestamp, text)
		if !long || c.seconds() < firstSecond || c.seconds() > lastSecond || floor(short) != c.seconds() {
			t.Errorf("%q is %d, or %d s, %v", text, short, c.seconds(), long)
		}
	})
}

// floor gives whole seconds of microseconds.
func floor(micros int64) int64 {
	if micros < 0 {
		micros -= 999_999
	}
	return micros / 1e6
}

// What discard leaves in rows: the members of all objects that the contract
// describes.
func TestKnownFields(t *testing.T) {
	text := func(unknown, properties string) string {
		return strings.Replace(fmt.Sprintf(columnsText, properties), "schema:", "customProperties: [{property: naru.unknownFields, value: "+unknown+"}]\nschema:", 1)
	}
	for _, c := range []struct{ properties, want string }{
		{"      - {name: a}\n      - {name: b, logicalType: integer}", `{"fields":{"a":null,"b":null}}`},
		{"      - {name: a.b, logicalType: object}\n      - {name: c, properties: [{name: d}]}", `{"fields":{"a.b":null,"c":{"fields":{"d":null}}}}`},
		{"      - {name: a, logicalType: array, items: {logicalType: object, properties: [{name: b}]}}", `{"fields":{"a":{"items":{"fields":{"b":null}}}}}`},
		{"      - {name: a, logicalType: array, items: {logicalType: array, items: {properties: [{name: b}]}}}", `{"fields":{"a":{"items":{"items":{"fields":{"b":null}}}}}}`},
		{"      - {name: a, logicalType: array, items: {logicalType: string}}", `{"fields":{"a":null}}`},
		{"      - {name: a, properties: [{name: b}], customProperties: [{property: naru.pii, value: drop}]}", `{"fields":{"a":null}}`},
	} {
		got := compileOne(t, text("discard", c.properties), "order")
		if known, err := json.Marshal(got.Shape().Known); err != nil || string(known) != c.want {
			t.Errorf("%s: %s, want %s", c.properties, known, c.want)
		}
		for _, other := range []string{"evolve", "freeze"} {
			if s := compileOne(t, text(other, c.properties), "order").Shape(); s != nil && s.Known != nil {
				t.Errorf("%s: %s: %+v", c.properties, other, s.Known)
			}
		}
	}
	if s := compileOne(t, text("discard", "      []"), "order").Shape(); s != nil {
		t.Errorf("no properties: %+v", s)
	}
}

// What Check says of fields that make no column agrees with what the shape knows.
func TestLeftOut(t *testing.T) {
	c := compileOne(t, strings.NewReplacer("- {property: naru.jsonStrings, value: [extra]}", "- {property: naru.unknownFields, value: discard}\n      - {property: naru.jsonStrings, value: [extra, \"list[]\"]}",
		"- name: extra", "- {name: list, logicalType: array, items: {logicalType: object, properties: [{name: v}]}}\n      - name: extra").Replace(personal), "signup")
	in := []byte(`{"x":1,"phone":"1","plan":"free","y":{"plan":2},"friends":[{"since":1},{"a b":2}],"extra":"{\"w\":1}","list":["{\"u\":1}"]}`)
	s := Scratch{Tell: true}
	if v := c.Check(in, &s); v != nil || fmt.Sprint(s.LeftOut) != `[$.x $.y $.friends[1]["a b"] $.extra.w]` {
		t.Errorf("%v, left out %v", v, s.LeftOut)
	}
	if s.Tell = false; c.Check(in, &s) != nil || len(s.LeftOut) != 0 {
		t.Errorf("not asked: %v", s.LeftOut)
	}
	s.Tell = true
	if c.Check([]byte(`{"x":1,"extra":"{\"w\":1,"`), &s); len(s.LeftOut) != 0 {
		t.Errorf("no JSON: %v", s.LeftOut)
	}
	if c.Check([]byte("{\"phone\":\"1\""+strings.Repeat(`,"x":1`, 100)+"}"), &s); len(s.LeftOut) != MaxViolations {
		t.Errorf("%d", len(s.LeftOut))
	}
}

// A contract that discards is another one than it was when the door left such fields
// out: a lake keeps for good what the contract of a hash says.
func TestHashOfDiscard(t *testing.T) {
	for unknown, same := range map[string]bool{"evolve": true, "freeze": true, "discard": false} {
		text := fmt.Sprintf(columnsText, "      - {name: a}") + "customProperties: [{property: naru.unknownFields, value: " + unknown + "}]\n"
		before := hashOf(digest([]byte(text)), digest([]byte("order")))
		if got := compileOne(t, text, "order").Hash; got == before != same {
			t.Errorf("%s: %s, %s", unknown, got, before)
		}
	}
}
