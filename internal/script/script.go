// Package script runs a function in JavaScript on rows: each in a world of its own,
// so that what becomes of a row depends on that row alone.
package script

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"github.com/dop251/goja"
)

// Limits of one call.
type Limits struct {
	Time   time.Duration
	Memory int64 // bytes by which the process may grow; looked at every few milliseconds
}

// Function is a function of a row. Safe for concurrent use.
type Function struct {
	program *goja.Program
	limits  Limits
	worlds  sync.Pool // *world
}

// world is a runtime in which nothing can be changed, so that no call leaves anything
// to the next: the function itself is made anew for each.
type world struct {
	rt               *goja.Runtime
	parse, stringify goja.Callable
	now              time.Time
}

// Compile reads the text of a function, as in `function(row) { ... }` or `row => ...`.
// An error has the place in the text.
func Compile(code string, limits Limits) (*Function, error) {
	program, err := goja.Compile("js", "("+code+"\n)", true)
	if err != nil {
		return nil, fmt.Errorf("read function: %s", tidy(err.Error()))
	}
	f := &Function{program: program, limits: limits}
	w, err := f.world()
	if err != nil {
		return nil, err
	}
	if _, err := f.in(w); err != nil {
		return nil, err
	}
	f.worlds.Put(w)
	return f, nil
}

// RowError is that the function cannot be computed on a row.
type RowError struct{ text string }

func (e *RowError) Error() string { return e.text }

// Wrong is a RowError.
func Wrong(format string, args ...any) error { return &RowError{fmt.Sprintf(format, args...)} }

// deep bounds calls within each other.
const deep = 1000

// longest is the most characters of a text that is made of another by repetition.
const longest = 1 << 20

// prelude takes away what gives something else each time, and what takes memory at
// once, and freezes the rest.
var prelude = goja.MustCompile("prelude", fmt.Sprintf(`'use strict';
delete Math.random;
for (const name of ['ArrayBuffer', 'SharedArrayBuffer', 'DataView', 'Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array', 'Uint32Array',
	'Float32Array', 'Float64Array', 'BigInt64Array', 'BigUint64Array', 'Promise', 'WeakRef', 'eval', 'Function']) delete globalThis[name];
for (const name of ['repeat', 'padStart', 'padEnd']) {
	const original = String.prototype[name];
	String.prototype[name] = function (n, fill) {
		if ((name === 'repeat' ? n * this.length : n) > %d) throw new RangeError(name + ' would make a text of more than %d characters');
		return original.call(this, n, fill);
	};
}
const seen = new Set();
function freeze(o) {
	if (o === null || typeof o !== 'object' && typeof o !== 'function' || seen.has(o)) return;
	seen.add(o);
	freeze(Object.getPrototypeOf(o));
	for (const key of Reflect.ownKeys(o)) {
		const d = Object.getOwnPropertyDescriptor(o, key);
		freeze(d.get); freeze(d.set);
		if (!d.get) freeze(o[key]);
	}
	Object.freeze(o);
}
for (const o of [[][Symbol.iterator](), new Map()[Symbol.iterator](), new Set()[Symbol.iterator](), ''[Symbol.iterator](), 'x'.matchAll(/x/g), function* () {}, async function () {}]) freeze(Object.getPrototypeOf(o));
// The global object does not list what nobody has touched.
for (const name of ['Object', 'Array', 'String', 'Number', 'Boolean', 'Symbol', 'BigInt', 'Date', 'RegExp', 'Map', 'Set', 'WeakMap', 'WeakSet', 'Proxy', 'Reflect', 'JSON', 'Math', 'Iterator',
	'Error', 'AggregateError', 'EvalError', 'RangeError', 'ReferenceError', 'SyntaxError', 'TypeError', 'URIError', 'GoError',
	'parseInt', 'parseFloat', 'isNaN', 'isFinite', 'decodeURI', 'decodeURIComponent', 'encodeURI', 'encodeURIComponent', 'escape', 'unescape', 'globalThis']) {
	if (name !== 'globalThis') freeze(globalThis[name]);
	if (name in globalThis) Object.defineProperty(globalThis, name, {value: globalThis[name], writable: false, configurable: false});
}
freeze(globalThis);`, longest, longest), true)

// world makes a runtime.
func (f *Function) world() (*world, error) {
	if w, ok := f.worlds.Get().(*world); ok {
		return w, nil
	}
	w := &world{rt: goja.New()}
	w.rt.SetMaxCallStackSize(deep)
	w.rt.SetTimeSource(func() time.Time { return w.now.UTC() })
	text := w.rt.Get("JSON").ToObject(w.rt)
	w.parse, _ = goja.AssertFunction(text.Get("parse"))
	w.stringify, _ = goja.AssertFunction(text.Get("stringify"))
	if _, err := w.rt.RunProgram(prelude); err != nil {
		return nil, fmt.Errorf("prepare script: %w", err)
	}
	return w, nil
}

// in makes the function in a world.
func (f *Function) in(w *world) (goja.Callable, error) {
	v, err := w.rt.RunProgram(f.program)
	if err != nil {
		return nil, fmt.Errorf("read function: %s", tidy(err.Error()))
	}
	call, ok := goja.AssertFunction(v)
	if !ok {
		return nil, errors.New("read function: it is no function: write row => ... or function(row) { ... }")
	}
	return call, nil
}

// Call gives what the function returns of a row, a JSON object, as JSON; nil when it
// returns null, undefined or false. Date.now() is now. A RowError says that the row is
// to blame.
func (f *Function) Call(ctx context.Context, row []byte, now time.Time) ([]byte, error) {
	if n := inexact(row); n != "" {
		return nil, &RowError{fmt.Sprintf("JavaScript cannot hold the number %s exactly: cast its column to VARCHAR in a step before", n)}
	}
	w, err := f.world()
	if err != nil {
		return nil, err
	}
	w.now = now
	out, err := f.run(ctx, w, row)
	if err == nil {
		w.rt.ClearInterrupt() // that came when the call had ended
		f.worlds.Put(w)       // one in which something went wrong is not used again
		return out, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var interrupted *goja.InterruptedError
	if errors.As(err, &interrupted) {
		return nil, &RowError{fmt.Sprint(interrupted.Value())}
	}
	var stack *goja.StackOverflowError
	if errors.As(err, &stack) {
		return nil, &RowError{fmt.Sprintf("the function has more than %d calls within each other", deep)}
	}
	return nil, &RowError{tidy(err.Error())}
}

func (f *Function) run(ctx context.Context, w *world, row []byte) ([]byte, error) {
	defer f.watch(ctx, w.rt)()
	call, err := f.in(w)
	if err != nil {
		return nil, err
	}
	v, err := w.parse(goja.Undefined(), w.rt.ToValue(string(row)))
	if err != nil {
		return nil, err
	}
	if v, err = call(goja.Undefined(), v); err != nil || goja.IsNull(v) || goja.IsUndefined(v) || v.StrictEquals(w.rt.ToValue(false)) {
		return nil, err
	}
	if v, err = w.stringify(goja.Undefined(), v); err != nil {
		return nil, err
	}
	return []byte(v.String()), nil
}

// look is how often a call is looked at.
const look = 5 * time.Millisecond

// watch ends a call that takes too long or too much memory.
func (f *Function) watch(ctx context.Context, rt *goja.Runtime) (stop func()) {
	begun, before := time.Now(), int64(-1)
	var mu struct {
		sync.Mutex
		ended bool
		timer *time.Timer
	}
	check := func() {
		mu.Lock()
		defer mu.Unlock()
		if mu.ended {
			return
		}
		held := heap()
		if before < 0 {
			before = held
		}
		switch {
		case ctx.Err() != nil:
			rt.Interrupt("ended")
		case time.Since(begun) > f.limits.Time:
			rt.Interrupt(fmt.Sprintf("the function took longer than %s", f.limits.Time))
		case held-before > f.limits.Memory:
			rt.Interrupt(fmt.Sprintf("the function took more than %d bytes of memory", f.limits.Memory))
		default:
			mu.timer.Reset(look)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	mu.timer = time.AfterFunc(look, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		mu.ended = true
		mu.timer.Stop()
	}
}

func heap() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// inexact finds a whole number that a double does not hold.
func inexact(row []byte) string {
	digits := 0
	for _, c := range row {
		if c >= '0' && c <= '9' {
			if digits++; digits > 15 {
				break
			}
			continue
		}
		digits = 0
	}
	if digits <= 15 {
		return ""
	}
	dec := json.NewDecoder(bytes.NewReader(row))
	dec.UseNumber()
	for {
		t, err := dec.Token()
		if err != nil {
			return ""
		}
		n, ok := t.(json.Number)
		if !ok || strings.ContainsAny(string(n), ".eE") {
			continue
		}
		whole, ok := new(big.Int).SetString(string(n), 10)
		if !ok {
			continue
		}
		if _, accuracy := new(big.Float).SetInt(whole).Float64(); accuracy != big.Exact {
			return string(n)
		}
	}
}

// tidy takes out where a message says that the text stands.
func tidy(message string) string {
	message, _, _ = strings.Cut(message, " at js:")
	return strings.TrimPrefix(strings.ReplaceAll(message, "js: ", ""), "SyntaxError: SyntaxError: ")
}
