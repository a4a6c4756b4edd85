package duck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/row"
	js "naru/internal/script"
	"naru/internal/transform"
)

// call is a step in JavaScript: between segments, because which columns it gives is
// known only once it has run.
type call struct {
	label    string
	line     int
	function *js.Function
}

func newCall(number int, step transform.Step) (*call, error) {
	c := &call{label: fmt.Sprintf("%d %s", number, step.Kind), line: step.Line}
	var err error
	c.function, err = js.Compile(step.Script.Code, js.Limits{Time: step.Script.Time.Std(), Memory: int64(step.Script.Memory)})
	if err != nil {
		return nil, &stepError{line: step.Line, step: c.label, err: err}
	}
	return c, nil
}

// apply calls the function with each row.
func (c *call) apply(ctx context.Context, in *event.Batch) (*transform.Applied, error) {
	out := *in
	var rows []event.Event
	done := &transform.Applied{Batch: &out}
	var data, text []byte
	for i := range in.Rows.Len() {
		e := &event.Event{}
		data = in.Rows.Event(i, e, data)
		text = row.AppendJSON(text[:0], in.Columns, e, in.Partition)
		answer, err := c.function.Call(ctx, text, e.ReceivedAt)
		if err == nil {
			rows, err = rowsOfAnswer(rows, e, answer)
		}
		var wrong *js.RowError
		if errors.As(err, &wrong) {
			done.Refused = append(done.Refused, transform.Refused{Offset: e.Offset, Step: c.label, Detail: wrong.Error()})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("compute step %s: %w", c.label, err)
		}
	}
	out.Rows, out.Columns = event.RowsOf(rows...), nil
	return done, nil
}

// rowsOfAnswer appends what a function has made of a row: nothing, an object, or a
// list of objects.
func rowsOfAnswer(rows []event.Event, e *event.Event, answer []byte) ([]event.Event, error) {
	if len(answer) == 0 {
		return rows, nil
	}
	if answer[0] != '[' {
		made, err := rowOfAnswer(e, answer)
		return append(rows, made), err
	}
	var scan jsonscan.Scanner
	for at := jsonscan.Space(answer, 1); answer[at] != ']'; {
		end := scan.Value(answer, at, nil)
		made, err := rowOfAnswer(e, answer[at:end])
		if err != nil {
			return rows, err
		}
		rows = append(rows, made)
		if at = jsonscan.Space(answer, end); answer[at] == ',' {
			at = jsonscan.Space(answer, at+1)
		}
	}
	return rows, nil
}

// rowOfAnswer is a row whose attributes are replaced by the members that are called so.
func rowOfAnswer(e *event.Event, object []byte) (event.Event, error) {
	made := *e
	if len(object) == 0 || object[0] != '{' {
		return made, js.Wrong("the function gave %.40s: it gives a row, a list of rows, or null", object)
	}
	made.Data = append(make([]byte, 0, len(object)), '{')
	var scan jsonscan.Scanner
	var members jsonscan.Members
	for members.Reset(object, 0, len(object)); ; {
		name, value, ok := members.Next(&scan)
		if !ok {
			break
		}
		key := string(jsonscan.Text(object, name))
		if !event.InEnvelope(key) {
			if len(made.Data) > 1 {
				made.Data = append(made.Data, ',')
			}
			made.Data = append(append(jsonscan.AppendQuoted(made.Data, key), ':'), object[value.Start:value.End]...)
			continue
		}
		if !overrides[key] || value.Kind == jsonscan.Null {
			continue
		}
		if value.Kind != jsonscan.String && value.Kind != jsonscan.Escaped {
			return made, js.Wrong("%s is no text", key)
		}
		text := bytes.Clone(jsonscan.Text(object, value))
		if err := attribute(&made, key, text); err != nil {
			return made, err
		}
	}
	made.Data = append(made.Data, '}')
	return made, nil
}

// attribute gives an event an attribute that a function has returned.
func attribute(e *event.Event, name string, text []byte) error {
	if len(text) == 0 && name != "_subject" {
		return js.Wrong("%s is empty; null keeps that of the event", name)
	}
	switch name {
	case "_id":
		if !bytes.Equal(e.ID, text) {
			e.ID, e.GeneratedID = text, false
		}
	case "_type":
		e.Type = text
	case "_source":
		e.Source = text
	case "_subject":
		e.Subject = text
	case "_time":
		at, err := time.Parse(time.RFC3339Nano, string(text))
		if err != nil {
			return js.Wrong("_time is no time: %s", text)
		}
		if was := e.Time; was.IsZero() || at.UnixMicro() != was.UnixMicro() {
			e.Time = at.UTC()
		}
	}
	return nil
}
