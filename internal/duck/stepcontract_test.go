package duck

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/recordbatch"
)

// Steps have the columns of rows: a field that the event's contract discards is not
// among them, and what they compute is, whatever the contract knows.
func TestStepsAndDiscardedFields(t *testing.T) {
	known := &lake.Known{Fields: map[string]*lake.Known{"page": nil, "device": {Fields: map[string]*lake.Known{"os": nil}}}}
	s := stepsFor(t, StepsDeps{Shape: func(hash []byte) *lake.Shape {
		if string(hash) == "c" {
			return &lake.Shape{Known: known}
		}
		return nil
	}})
	tr := openSteps(t, s, sqlSteps("SELECT *, page || '!' AS more FROM input"))
	var b recordbatch.Builder
	b.Reset(received)
	for _, hash := range []string{"c", "other"} {
		e := &event.Event{ID: []byte(hash), Source: []byte("test"), Type: []byte("visit"), Data: []byte(`{"page":"/","x":1,"device":{"os":"iOS","serial":"C02"}}`)}
		e.Contract = event.Contract{ID: []byte("visits"), Version: []byte("1"), Hash: []byte(hash)}
		b.AppendEvent(e)
	}
	raw := b.Finish(nil, recordbatch.None)
	out := apply(t, tr, &event.Batch{Stream: "events", Incarnation: event.Incarnation{1}, Next: 2, Raw: [][]byte{raw}})
	rows := out.Batch.Rows.Whole()
	require.Len(t, rows, 2)
	require.JSONEq(t, `{"page":"/","device_os":"iOS","more":"/!"}`, string(rows[0].Data))
	require.JSONEq(t, `{"page":"/","device_os":"iOS","more":"/!","x":1,"device_serial":"C02"}`, string(rows[1].Data))
}
