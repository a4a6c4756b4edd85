package script

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// limits of functions that end: a slow machine may take its time.
var limits = Limits{Time: time.Minute, Memory: 64 << 20}

func TestCall(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ code, row, want, wrong string }{
		{code: "row => row", row: `{"a": 1, "b": [true, null, "ü"]}`, want: `{"a":1,"b":[true,null,"ü"]}`},
		{code: "function(row) { return {sum: row.a + row.b}; } // more", row: `{"a": 1, "b": 2}`, want: `{"sum":3}`},
		{code: "row => [row, row]", row: `{"a": 1}`, want: `[{"a":1},{"a":1}]`},
		{code: "row => row.a > 1 ? row : null", row: `{"a": 1}`},
		{code: "row => { }", row: `{"a": 1}`},
		{code: "row => false", row: `{"a": 1}`},
		{code: "row => ({at: Date.now(), d: new Date().toISOString()})", row: `{}`, want: `{"at":1767323045000,"d":"2026-01-02T03:04:05.000Z"}`},
		{code: "(() => { let n = 0; return row => ({n: ++n}) })()", row: `{}`, want: `{"n":1}`},
		{code: "row => { try { Array.prototype.x = 1 } catch (e) { } return {x: [].x, y: Array.prototype.x} }", row: `{}`, want: `{}`},
		{code: "row => { Object.prototype.x = 1; return row }", row: `{}`, wrong: "TypeError"},
		{code: "row => { globalThis.n = (globalThis.n || 0) + 1; return {n: globalThis.n} }", row: `{}`, wrong: "TypeError"},
		{code: "row => { Array = 1; return row }", row: `{}`, wrong: "TypeError"},
		{code: "row => { JSON.parse = 1; return row }", row: `{}`, wrong: "TypeError"},
		{code: "row => { n = 1; return row }", row: `{}`, wrong: "ReferenceError"},
		{code: "row => ({p: typeof Promise, e: typeof eval, f: (() => { try { return (function(){}).constructor('return 1')() } catch (e) { return 'no' } })()})", row: `{}`, want: `{"p":"undefined","e":"undefined","f":1}`},
		{code: "row => { throw new Error('no ' + row.a) }", row: `{"a": 1}`, wrong: "Error: no 1"},
		{code: "row => row.a.b.c", row: `{"a": 1}`, wrong: "TypeError: Cannot read property 'c' of undefined"},
		{code: "row => ({x: Math.random()})", row: `{}`, wrong: "TypeError: Object has no member 'random'"},
		{code: "row => { let s = 'x'; for (;;) s += s + s }", row: `{}`, wrong: "the function took more than 67108864 bytes of memory"},
		{code: "row => 'x'.repeat(1e9)", row: `{}`, wrong: "RangeError: repeat would make a text of more than 1048576 characters"},
		{code: "function f(row) { return f(row) }", row: `{}`, wrong: "more than 1000 calls"},
		{code: "row => row", row: `{"a": 9007199254740993}`, wrong: "cannot hold the number 9007199254740993 exactly"},
		{code: "row => row", row: `{"a": 9007199254740992, "b": "9007199254740993"}`, want: `{"a":9007199254740992,"b":"9007199254740993"}`},
		{code: "row => { var x = {}; x.x = x; return x }", row: `{}`, wrong: "TypeError"},
	} {
		f, err := Compile(c.code, limits)
		require.NoError(t, err, c.code)
		for range 2 {
			got, err := f.Call(context.Background(), []byte(c.row), now)
			if c.wrong != "" {
				var row *RowError
				require.ErrorAs(t, err, &row, c.code)
				require.ErrorContains(t, err, c.wrong, c.code)
				continue
			}
			require.NoError(t, err, c.code)
			require.Equal(t, c.want, string(got), c.code)
		}
	}
}

// TestWorld: nothing that scripts can reach can be changed.
func TestWorld(t *testing.T) {
	f, err := Compile(`row => {
		const open = [], seen = new Set();
		const look = (function look(o, name) {
			if (o === null || typeof o !== 'object' && typeof o !== 'function' || seen.has(o)) return;
			seen.add(o);
			if (!Object.isFrozen(o)) open.push(name);
			look(Object.getPrototypeOf(o), name + '.__proto__');
			for (const key of Reflect.ownKeys(o)) {
				const d = Object.getOwnPropertyDescriptor(o, key);
				if (!d.get) look(o[key], name + '.' + String(key));
			}
		});
		const start = {Object, Array, String, Number, Boolean, Symbol, BigInt, Date, RegExp, Map, Set, WeakMap, WeakSet, Proxy, Reflect, JSON, Math, Error, TypeError, RangeError, parseInt, encodeURIComponent, globalThis, row: /x/.constructor};
		for (const name in start) look(start[name], name);
		return {open};
	}`, limits)
	require.NoError(t, err)
	got, err := f.Call(context.Background(), []byte("{}"), time.Time{})
	require.NoError(t, err)
	require.JSONEq(t, `{"open": []}`, string(got))
}

func TestCompile(t *testing.T) {
	for code, wrong := range map[string]string{
		"row =>":           "read function: ",
		"1":                "it is no function",
		"nobody":           "ReferenceError: nobody is not defined",
		"row => row) + (1": "",
	} {
		_, err := Compile(code, limits)
		if wrong == "" {
			require.Error(t, err, code)
			continue
		}
		require.ErrorContains(t, err, wrong, code)
	}
}

func TestCallEnds(t *testing.T) {
	const endless = "row => { for (;;) {} }"
	f, err := Compile(endless, Limits{Time: 20 * time.Millisecond, Memory: 1 << 40})
	require.NoError(t, err)
	_, err = f.Call(context.Background(), []byte(`{}`), time.Time{})
	var row *RowError
	require.ErrorAs(t, err, &row)
	require.ErrorContains(t, err, "the function took longer than 20ms")

	f, err = Compile(endless, Limits{Time: time.Hour, Memory: 1 << 40})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = f.Call(ctx, []byte(`{}`), time.Time{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func BenchmarkCall(b *testing.B) {
	f, err := Compile("row => ({...row, more: row.added + 1})", limits)
	require.NoError(b, err)
	row := []byte(`{"isRobot":true,"channel":"#en.wikipedia","timestamp":"2015-09-12T00:46:58.771Z","flags":"MB","page":"Talk:Oswald Tilghman","added":36,"comment":"/* The village */ revised","delta":36,"user":"GELongstreet","namespace":"Talk"}`)
	for b.Loop() {
		if _, err := f.Call(context.Background(), row, time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}
