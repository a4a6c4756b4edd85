package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"naru/internal/vfs"
)

const personal = `apiVersion: v3.1.0
kind: DataContract
id: signups
version: 1.0.0
status: active
schema:
  - name: signup
    properties:
      - {name: email, logicalType: string, logicalTypeOptions: {format: email}, customProperties: [{property: naru.pii, value: hash}]}
      - {name: phone, logicalType: string, required: true, customProperties: [{property: naru.pii, value: drop}]}
      - {name: name, logicalType: string, customProperties: [{property: naru.pii, value: truncate}, {property: naru.piiKeep, value: 1}]}
      - {name: zip, logicalType: string, customProperties: [{property: naru.pii, value: truncate}]}
      - {name: ip, logicalType: string, customProperties: [{property: naru.pii, value: ip}]}
      - {name: number, logicalType: integer, customProperties: [{property: naru.pii, value: hash}]}
      - {name: plan, logicalType: string}
      - name: friends
        logicalType: array
        items:
          logicalType: object
          properties:
            - {name: email, logicalType: string, customProperties: [{property: naru.pii, value: hash}]}
            - {name: since, logicalType: integer}
      - {name: aliases, logicalType: array, items: {logicalType: string, customProperties: [{property: naru.pii, value: drop}]}}
      - name: extra
        logicalType: object
        properties:
          - {name: phone, logicalType: string, customProperties: [{property: naru.pii, value: drop}]}
    customProperties:
      - {property: naru.jsonStrings, value: [extra]}
`

func testKeys(t testing.TB, entries ...string) *Keys {
	t.Helper()
	env := map[string]string{"ONE": "0123456789abcdef", "TWO": "fedcba9876543210"}
	k, err := LoadKeys(vfs.NewMemory(), "/p", PIIConfig{Keys: entries}, func(name string) string { return env[name] }, []byte("folder"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func compileOne(t testing.TB, text, typ string) *Contract {
	t.Helper()
	set, problems := Compile([]File{{Name: "a.yaml", Data: []byte(text)}})
	if problems != nil {
		t.Fatal(problems)
	}
	return set.For(typ)
}

func TestClean(t *testing.T) {
	keys := testKeys(t, "k2=env:TWO", "k1=env:ONE")
	c := compileOne(t, personal, "signup")
	h := func(value string) string { return `"` + keys.Tokens(value)[0] + `"` }
	old := `"` + keys.Tokens("me@example.com")[1] + `"`
	if !strings.HasPrefix(old, `"k1:`) || len(old) != 2+3+64 || old == h("me@example.com") {
		t.Fatal(old)
	}
	for _, test := range []struct{ name, in, want string }{
		{"nothing personal", ` {"plan" : "free", "other":[1, 2] }`, ""},
		{"null stays", `{"email":null,"phone":null,"ip":null,"friends":null,"extra":null}`, ""},
		{"hash", `{"email":"me@example.com","plan":"free"}`, `{"email":` + h("me@example.com") + `,"plan":"free"}`},
		{"hash of an escaped text", `{"email":"me\u0040example.com"}`, `{"email":` + h("me@example.com") + `}`},
		{"hash of a number", `{"number":7}`, `{"number":` + h("7") + `}`},
		{"hash of what should not be", `{"email":{"a":"b"}}`, `{"email":` + h(`{"a":"b"}`) + `}`},
		{"an escaped name", `{"e\u006dail":"a"}`, `{"e\u006dail":` + h("a") + `}`},
		{"twice", `{"email":"a","email":"b"}`, `{"email":` + h("a") + `,"email":` + h("b") + `}`},
		{"hashed before", `{"email":` + h("a") + `}`, ""},
		{"hashed before with an old key", `{"email":` + old + `}`, ""},
		{"like a hash, of no key", `{"email":"k9:` + strings.Repeat("0", 64) + `"}`, `{"email":` + h("k9:"+strings.Repeat("0", 64)) + `}`},
		{"drop", `{"phone":"1","plan":"x"}`, `{"plan":"x"}`},
		{"drop in the middle", `{"plan":"x", "phone" : "1" , "other" : 2}`, `{"plan":"x","other" : 2}`},
		{"drop all", `{"phone":"1","phone":2}`, `{}`},
		{"truncate", `{"name":"Mina","zip":"04524"}`, `{"name":"M","zip":"04"}`},
		{"truncate characters", `{"name":"김미나","zip":"ab"}`, `{"name":"김","zip":"ab"}`},
		{"truncate what is no text", `{"name":["Mina"]}`, `{"name":null}`},
		{"IPv4", `{"ip":"203.0.113.77"}`, `{"ip":"203.0.113.0"}`},
		{"IPv6", `{"ip":"2001:db8:1:2::3"}`, `{"ip":"2001:db8:1::"}`},
		{"IPv4 in IPv6", `{"ip":"::ffff:203.0.113.77"}`, `{"ip":"203.0.113.0"}`},
		{"IPv6 with a zone", `{"ip":"fe80::1%eth0"}`, `{"ip":"fe80::"}`},
		{"an IP already cut", `{"ip":"203.0.113.0"}`, ""},
		{"no IP", `{"ip":"203.0.113.77:80"}`, `{"ip":null}`},
		{"in an array", `{"friends":[{"email":"a","since":1},null,{"since":2},{"email":"b"}]}`, `{"friends":[{"email":` + h("a") + `,"since":1},null,{"since":2},{"email":` + h("b") + `}]}`},
		{"not what it should be", `{"friends":"a@b","plan":1}`, `{"friends":null,"plan":1}`},
		{"not what it should be, in an array", `{"friends":["a@b",{"email":"a"}]}`, `{"friends":[null,{"email":` + h("a") + `}]}`},
		{"items", `{"aliases":["a",null,"b"]}`, `{"aliases":[null]}`},
		{"JSON in a string", `{"extra":" {\"phone\":\"1\",\"x\":\"\\\"\"}"}`, `{"extra":"{\"x\":\"\\\"\"}"}`},
		{"JSON in a string, nothing in it", `{"extra":"{\"x\":1}"}`, ""},
		{"no JSON in a string", `{"extra":"phone 1"}`, `{"extra":null}`},
		{"an object where a string may be", `{"extra":{"phone":"1","x":2}}`, `{"extra":{"x":2}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := NewCleaner(keys)
			for range 2 { // it is reused
				got, changed, ok := x.Clean(c, []byte(test.in))
				want := test.want
				if want == "" {
					want = test.in
				}
				if !ok || string(got) != want || changed != (test.want != "") {
					t.Fatalf("%s, %v %v\nwant %s", got, changed, ok, want)
				}
				// Done again it changes nothing.
				again, changed, ok := NewCleaner(keys).Clean(c, bytes.Clone(got))
				if !ok || changed || string(again) != want {
					t.Fatalf("again: %s", again)
				}
			}
			got, _, ok := x.CleanEnvelope(c, []byte(`{"type":"signup", "data":`+test.in+`,"data_base64":"eA=="}`))
			if want := `{"type":"signup","data":` + test.want + `}`; test.want != "" && (!ok || string(got) != want) {
				t.Fatalf("envelope: %s", got)
			}
		})
	}
	for _, bad := range []string{"", "x", `"a"`, `[{"email":"a"}]`, `{"email":"a"`, `{"email":"a"}}`} {
		if _, _, ok := NewCleaner(keys).Clean(c, []byte(bad)); ok {
			t.Errorf("%q is said to be clean", bad)
		}
	}
}

// What an action has changed was judged before: it breaks nothing when it is
// judged again. What none has touched is judged.
func TestAgain(t *testing.T) {
	c := compileOne(t, personal, "signup")
	x := NewCleaner(testKeys(t, "k=env:ONE"))
	in := []byte(`{"email":"me@example.com","phone":"1","number":7,"friends":[{"email":"a","since":1}],"extra":"phone 1","ip":"?"}`)
	clean, _, _ := x.Clean(c, in)
	if v := c.Check(clean, &Scratch{}); len(v) == 0 {
		t.Errorf("nothing is wrong with %s", clean)
	}
	if v := c.Check(clean, &Scratch{Again: true}); v != nil {
		t.Errorf("%s: %v", clean, v)
	}
	if v := c.Check([]byte(`{"plan":7,"friends":[{"since":"x"}]}`), &Scratch{Again: true}); len(v) != 2 {
		t.Errorf("%v", v)
	}
}

func TestKeys(t *testing.T) {
	for _, bad := range []struct{ entry, want string }{
		{"0123456789abcdef0123456789abcdef", "entry 1 is neither ID=file:PATH nor ID=env:NAME"},
		{"k1=0123456789abcdef", "entry 1 is neither"},
		{"K=env:ONE", "entry 1 is neither"},
		{"k=env:NONE", "key k: the environment variable NONE is not set"},
		{"k=env:SHORT", "key k: it has 5 bytes: want 16 to 4096"},
		{"k=file:none", "key k: "},
	} {
		_, err := LoadKeys(vfs.NewMemory(), "/p", PIIConfig{Keys: []string{bad.entry}}, func(name string) string { return map[string]string{"SHORT": "12345"}[name] }, nil)
		if err == nil || !strings.Contains(err.Error(), bad.want) || strings.Contains(err.Error(), "0123456789") || strings.Contains(err.Error(), "12345") {
			t.Errorf("%s: %v", bad.entry, err)
		}
	}
	if err := (PIIConfig{Keys: []string{"a=env:A", "a=env:B"}}).Validate(); err == nil {
		t.Error("an id twice")
	}
	disk := vfs.NewMemory()
	if err := disk.MkdirAll("/p"); err != nil {
		t.Fatal(err)
	}
	write(t, disk, "/p/pii.key", "0123456789abcdef\n")
	k, err := LoadKeys(disk, "/p", PIIConfig{Keys: []string{"k=file:pii.key"}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// HMAC-SHA-256 as others compute it: RFC 4231, test case 1.
	rfc, err := LoadKeys(disk, "/p", PIIConfig{Keys: []string{"k=env:RFC"}}, func(string) string { return strings.Repeat("\x0b", 20) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := rfc.Tokens("Hi There"); !reflect.DeepEqual(got, []string{"k:b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"}) {
		t.Errorf("%v", got)
	}
	if got, want := k.Tokens("me@example.com"), testKeys(t, "k=env:ONE").Tokens("me@example.com"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, want)
	}
	if text := fmt.Sprintf("%v %+v %s %#v", k, k, k, k); strings.Contains(text, "0123") || strings.Contains(text, "30 31") {
		t.Error(text)
	}
	set, _ := Compile([]File{{Name: "a.yaml", Data: []byte(personal)}})
	if err := (&Keys{}).Allow(set); err == nil || !strings.Contains(err.Error(), "a.yaml:9: schema[signup].email: naru.pii hash needs a key") {
		t.Error(err)
	}
	if err := k.Allow(set); err != nil {
		t.Error(err)
	}
	// A digest stays the same while a new key is put before the old one.
	one, two := testKeys(t, "k1=env:ONE").Digester(), testKeys(t, "k2=env:TWO", "k1=env:ONE").Digester()
	a, b := one.Append(nil, []byte("a"), []byte("bc")), two.Append(nil, []byte("a"), []byte("bc"))
	if string(a) != string(b) || len(a) != 16 || string(a) == string(one.Append(nil, []byte("ab"), []byte("c"))) {
		t.Errorf("%s %s", a, b)
	}
}

// FuzzClean: what comes out is JSON that says the same but for what was to be
// changed, and no personal value is left in it.
func FuzzClean(f *testing.F) {
	f.Add(`{"email":"SECRETa","phone":"SECRETb","friends":[{"email":"SECRET"}],"extra":"{\"phone\":\"SECRET\"}"}`)
	f.Add(`{"extra":"SECRET","ip":"SECRET","name":["SECRET"],"aliases":{"a":"SECRET"}}`)
	f.Add(`{"extra":"[\"SECRET\"]", "friends":[["SECRET"]], "phone":{"a":1}}`)
	keys := testKeys(f, "k=env:ONE")
	c := compileOne(f, strings.Replace(personal, "value: truncate}, {property: naru.piiKeep, value: 1}", "value: hash}", 1), "signup")
	f.Fuzz(func(t *testing.T, in string) {
		out, changed, ok := NewCleaner(keys).Clean(c, []byte(in))
		var tree map[string]any
		if !ok {
			if json.Unmarshal([]byte(in), &tree) == nil && tree != nil {
				t.Fatalf("%q is JSON", in)
			}
			return
		}
		if err := json.Unmarshal(out, &tree); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if !changed && string(out) != in {
			t.Fatalf("%q became %q", in, out)
		}
		for _, name := range []string{"email", "phone", "name", "ip", "friends", "aliases", "extra"} {
			text, _ := json.Marshal(tree[name])
			if bytes.Contains(text, []byte("SECRET")) && !strings.Contains(in, `\`) && name != "friends" && name != "extra" {
				t.Fatalf("%q became %q", in, out)
			}
		}
	})
}
