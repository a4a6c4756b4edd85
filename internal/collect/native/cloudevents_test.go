package native

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"naru/internal/stream/memory"
)

const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json; charset=utf-8"
)

func TestStructuredEvents(t *testing.T) {
	const need = `"specversion":"1.0","id":"A-1","source":"/s","type":"com.x.y"`
	for _, c := range []struct{ name, body, want string }{
		{"least", `{` + need + `}`, `com.x.y  #A-1 from /s`},
		{"data is kept byte for byte", "{" + need + `,"data": {"a" : 1.50, "b":"\u00e9"} }`, `com.x.y {"a" : 1.50, "b":"\u00e9"} #A-1 from /s`},
		{"data that is no object", `{` + need + `,"data":[1,2]}`, `com.x.y [1,2] #A-1 from /s`},
		{"data null", `{` + need + `,"data":null}`, `com.x.y null #A-1 from /s`},
		{"a JSON string", `{` + need + `,"data":"x\ny"}`, `com.x.y "x\ny" #A-1 from /s`},
		{"text of another type", `{` + need + `,"datacontenttype":"text/xml","data":"<a>\n</a>"}`, "com.x.y <a>\n</a> #A-1 from /s as text/xml"},
		{"a +json type", `{` + need + `,"datacontenttype":"application/vnd.x+json; v=1","data":"x"}`, `com.x.y "x" #A-1 from /s as application/vnd.x+json; v=1`},
		{"base64", `{` + need + `,"datacontenttype":"image/png","data_base64":"AAEC/w=="}`, "com.x.y \x00\x01\x02\xff #A-1 from /s as image/png"},
		{"base64 without padding, escaped", `{` + need + `,"datacontenttype":"image/png","data_base64":"AAEC\/w"}`, "com.x.y \x00\x01\x02\xff #A-1 from /s as image/png"},
		{"all attributes", `{` + need + `,"subject":"u\u0031","time":"2018-04-05T17:31:00Z","dataschema":"http://x/y","datacontenttype":"application/json","data":{}}`,
			`com.x.y {} @2018-04-05T17:31:00Z #A-1 from /s of u1 key u1 dataschema=http://x/y`},
		{"extensions", `{` + need + `,"aa":"x","bb":5,"cc":true,"dd":null,"ee":-0}`, `com.x.y  #A-1 from /s aa=x bb=5 cc=true ee=-0`},
		{"partition key", `{` + need + `,"subject":"s1","partitionkey":"p1"}`, `com.x.y  #A-1 from /s of s1 key p1 partitionkey=p1`},
		{"nulls are absent", `{` + need + `,"subject":null,"time":null,"datacontenttype":null,"data_base64":null}`, `com.x.y  #A-1 from /s`},
		{"empty subject", `{` + need + `,"subject":""}`, `com.x.y  #A-1 from /s`},
		{"names with escapes", `{"\u0073pecversion":"1.0","id":"A-1","source":"/s","type":"t","dat\u0061":7}`, `t 7 #A-1 from /s`},
		{"time that is none", `{` + need + `,"time":"yesterday"}`, `com.x.y  #A-1 from /s`},
		{"time of another form", `{` + need + `,"time":"2018-04-05 17:31:00+0200"}`, `com.x.y  @2018-04-05T17:31:00+02:00 #A-1 from /s`},
		{"the last of two", `{` + need + `,"id":"A-2","aa":"x","aa":"y"}`, `com.x.y  #A-2 from /s aa=y`},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := memory.New()
			d, _ := newDoor(t, log, nil)
			// Alone and in a batch it is the same.
			for _, r := range []*http.Request{
				request("", c.body, "Content-Type", structuredType),
				request("", " [ "+c.body+" ] ", "Content-Type", batchType),
			} {
				if got := do(t, d, r); got.status != 200 || got.Accepted != 1 {
					t.Fatalf("%d %s", got.status, got.body)
				}
			}
			all := stored(t, log, "events")
			for i := range all {
				if got := brief(&all[i]); got != c.want {
					t.Errorf("event %d:\n got %q\nwant %q", i, got, c.want)
				}
			}
		})
	}
}

func TestBadAttributes(t *testing.T) {
	for _, c := range []struct{ body, id, detail string }{
		{`{}`, "", "attribute specversion is missing; it is 1.0"},
		{`{"specversion":"0.3","id":"1","source":"s","type":"t"}`, "1", `attribute specversion is "0.3", only 1.0 is taken`},
		{`{"specversion":1.0,"id":"1","source":"s","type":"t"}`, "1", "attribute specversion must be a string"},
		{`{"specversion":"1.0","source":"s","type":"t"}`, "", "attribute id is missing or empty"},
		{`{"specversion":"1.0","id":"","source":"s","type":"t"}`, "", "attribute id is missing or empty"},
		{`{"specversion":"1.0","id":7,"source":"s","type":"t"}`, "", "attribute id must be a string"},
		{`{"specversion":"1.0","id":"1","type":"t"}`, "1", "attribute source is missing or empty"},
		{`{"specversion":"1.0","id":"1","source":"s","type":null}`, "1", "attribute type is missing or empty"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","subject":{}}`, "1", "attribute subject is neither a string nor a whole number nor a boolean"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","time":1767225600}`, "1", "attribute time must be a string"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","myExt":"x"}`, "1", `attribute "myExt": a name has only a-z and 0-9`},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","":"x"}`, "1", `attribute "": a name has only a-z and 0-9`},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","ext":1.5}`, "1", "attribute ext is the number 1.5; only whole numbers, strings and booleans are attributes"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","ext":[1]}`, "1", "attribute ext is neither a string nor a whole number nor a boolean"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}`, "1", "both data and data_base64 are given"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"A"}`, "1", "data_base64 is not base64: illegal base64 data at input byte 0"},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":7}`, "1", "data_base64 must be a string"},
	} {
		log := memory.New()
		d, _ := newDoor(t, log, nil)
		good := `{"specversion":"1.0","id":"g","source":"s","type":"t"}`
		got := do(t, d, request("", "["+good+","+c.body+","+good+"]", "Content-Type", batchType))
		if got.status != 200 || got.Accepted != 2 || len(got.Rejected) != 1 {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
			continue
		}
		if r := got.Rejected[0]; r.Index != 1 || r.Reason != "bad_attribute" || r.ID != c.id || r.Detail != c.detail {
			t.Errorf("%s: %+v, want id %q and %q", c.body, r, c.id, c.detail)
		}
		all := stored(t, log, "rejected")
		if len(all) != 1 || string(all[0].Refusal.Original) != c.body || string(all[0].ContentType) != "application/cloudevents+json" {
			t.Errorf("%s: %d rejections stored", c.body, len(all))
		}
	}
}

func TestBatches(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	if got := do(t, d, request("", "[]", "Content-Type", batchType)); got.status != 200 || got.Accepted != 0 || got.body != "{\"accepted\": 0, \"rejected\": [], \"positions\": []}\n" {
		t.Errorf("empty: %d %s", got.status, got.body)
	}
	got := do(t, d, request("", `[7,{"specversion":"1.0","id":"1","source":"s","type":"t"}]`, "Content-Type", batchType))
	if got.status != 200 || got.Accepted != 1 || len(got.Rejected) != 1 || got.Rejected[0].Reason != "not_object" {
		t.Errorf("%d %s", got.status, got.body)
	}
	// A fault in the JSON refuses all.
	before := len(stored(t, log, "events"))
	if got := do(t, d, request("", `[{"specversion":"1.0","id":"1","source":"s","type":"t"},{]`, "Content-Type", batchType)); got.status != 400 || !strings.Contains(got.Detail, "at byte 57") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n := len(stored(t, log, "events")); n != before {
		t.Errorf("%d events, before %d", n, before)
	}
}

func TestBinaryEvents(t *testing.T) {
	need := []string{"ce-specversion", "1.0", "ce-id", "A-1", "ce-source", "/s", "ce-type", "com.x.y"}
	for _, c := range []struct {
		name    string
		headers []string
		body    string
		want    string
	}{
		{"JSON", []string{"Content-Type", "application/json"}, ` {"a":1} `, `com.x.y  {"a":1}  #A-1 from /s`},
		{"broken JSON is data all the same", []string{"Content-Type", "application/json"}, `{`, `com.x.y { #A-1 from /s`},
		{"any media type", []string{"Content-Type", "image/png"}, "\x89PNG", "com.x.y \x89PNG #A-1 from /s as image/png"},
		{"other charset", []string{"Content-Type", "text/plain; charset=latin1"}, "\xe4", "com.x.y \xe4 #A-1 from /s as text/plain; charset=latin1"},
		{"no data", nil, "", `com.x.y  #A-1 from /s`},
		{"sniffed JSON", nil, `{"a":1}`, `com.x.y {"a":1} #A-1 from /s`},
		{"sniffed bytes", nil, `a`, `com.x.y a #A-1 from /s as application/octet-stream`},
		{"curl -d", []string{"Content-Type", "application/x-www-form-urlencoded"}, `{"a":1}`, `com.x.y {"a":1} #A-1 from /s`},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, `a=1`, `com.x.y a=1 #A-1 from /s as application/x-www-form-urlencoded`},
		{"all attributes", []string{"ce-subject", "u1", "ce-time", "2018-04-05T17:31:00Z", "ce-dataschema", "http://x", "ce-zz", "9", "ce-aa", "x"}, `{}`,
			`com.x.y {} @2018-04-05T17:31:00Z #A-1 from /s of u1 key u1 aa=x dataschema=http://x zz=9`},
		{"partition key", []string{"ce-subject", "u1", "ce-partitionkey", "p"}, `{}`, `com.x.y {} #A-1 from /s of u1 key p partitionkey=p`},
		// The example of the HTTP binding, 3.1.3.2.
		{"percent-encoding", []string{"ce-aa", "Euro%20%E2%82%AC%20%F0%9F%98%80"}, `{}`, `com.x.y {} #A-1 from /s aa=Euro € 😀`},
		{"decoded once", []string{"ce-aa", "%2541%"}, `{}`, `com.x.y {} #A-1 from /s aa=%41%`},
		{"not hexadecimal", []string{"ce-aa", "100%zz %4"}, `{}`, `com.x.y {} #A-1 from /s aa=100%zz %4`},
		{"quoted", []string{"ce-aa", `"a \"b\" %22"`}, `{}`, `com.x.y {} #A-1 from /s aa=a "b" "`},
		{"time that is none", []string{"ce-time", "now"}, `{}`, `com.x.y {} #A-1 from /s`},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := memory.New()
			d, _ := newDoor(t, log, nil)
			got := do(t, d, request("", c.body, append(c.headers, need...)...))
			if got.status != 200 || got.Accepted != 1 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			all := stored(t, log, "events")
			if got := brief(&all[0]); got != c.want {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
		})
	}
}

// A media type of events goes before ce- headers.
func TestStructuredGoesBeforeHeaders(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	do(t, d, request("", `{"specversion":"1.0","id":"body","source":"s","type":"t"}`, "Content-Type", structuredType, "ce-id", "header"))
	if all := stored(t, log, "events"); len(all) != 1 || string(all[0].ID) != "body" {
		t.Errorf("%d events", len(all))
	}
}

func FuzzStructured(f *testing.F) {
	for _, s := range []string{
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":1},"time":"2018-04-05T17:31:00Z"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AAEC","ext":7}`,
		`[{"specversion":"1.0"},7]`, `{"data":1,"data_base64":"x"}`, `{"a":{}}`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, batch bool) {
		log := memory.New()
		d, _ := newDoor(t, log, nil)
		media := structuredType
		if batch {
			media = batchType
		}
		got := do(t, d, request("", string(body), "Content-Type", media))
		if got.status != 200 {
			if got.status/100 != 4 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			return
		}
		if !json.Valid(body) && !strings.HasPrefix(string(body), "\xef\xbb\xbf") {
			t.Fatalf("%q was taken", body)
		}
		all := stored(t, log, "events")
		if len(all) != got.Accepted {
			t.Fatalf("%d accepted, %d stored", got.Accepted, len(all))
		}
		if batch || len(all) == 0 {
			return
		}
		var want struct {
			ID         string          `json:"id"`
			Data       json.RawMessage `json:"data"`
			DataBase64 *string         `json:"data_base64"`
		}
		if json.Unmarshal(body, &want) != nil || strings.Contains(strings.ToLower(string(body)), "datacontenttype") {
			return
		}
		data := []byte(want.Data)
		if want.DataBase64 != nil {
			var err error
			if data, err = base64.StdEncoding.DecodeString(*want.DataBase64); err != nil {
				return
			}
		}
		if strings.Count(strings.ToLower(string(body)), "data") == 1 && string(all[0].Data) != string(data) {
			t.Fatalf("%q: data %q, want %q", body, all[0].Data, data)
		}
	})
}

func FuzzBinary(f *testing.F) {
	f.Add("aa", "x%20y", "id", []byte(`{}`))
	f.Add("time", "2018-04-05T17:31:00Z", "1", []byte{0xff})
	f.Add("my_ext", `"a\"b"`, "%41", []byte{})
	f.Fuzz(func(t *testing.T, name, value, id string, body []byte) {
		log := memory.New()
		d, _ := newDoor(t, log, nil)
		r := httptest.NewRequest("POST", Path, strings.NewReader(string(body)))
		r.Header = http.Header{"Ce-Specversion": {"1.0"}, "Ce-Source": {"s"}, "Ce-Type": {"t"}, "Ce-Id": {id}}
		r.Header[http.CanonicalHeaderKey("ce-"+name)] = []string{value}
		got := do(t, d, r)
		if got.status != 200 && got.status/100 != 4 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		for _, e := range stored(t, log, "events") {
			if string(e.Data) != string(body) || len(e.ID) == 0 || len(e.Source) == 0 || len(e.Type) == 0 {
				t.Fatalf("stored %s", brief(&e))
			}
		}
	})
}
