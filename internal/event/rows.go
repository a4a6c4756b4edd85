package event

// Rows are what steps have made of the events of a batch: in the order of offsets,
// several of one event in the order of their numbers. They are not to be changed but
// through methods that give other Rows. nil: there were no steps.
//
// A batch may have tens of thousands, so a row has no pointers and no bytes of its own:
// what it is stands in its frame.
type Rows struct {
	List   []Row
	Frames []Frame
}

// Row is one of Rows.
type Row struct {
	Offset int64  // of the event that it was made of
	To     uint64 // Event.To
	Number int32  // Event.Row
	Frame  int32  // in Rows.Frames
	At     int32  // in the frame
}

// RowSize is what a row takes in Rows.List, in bytes.
const RowSize = 32

// Frame is a run of rows. Used concurrently by whoever reads the rows.
type Frame interface {
	// Event sets e to the row at a place, but for its data and for what stands in Row.
	// Its slices are valid as long as the frame is.
	Event(at int, e *Event)
	// AppendData appends the data of that row; none: dst as it was.
	AppendData(dst []byte, at int) []byte
	// Size is the number of bytes that the frame takes, roughly.
	Size() int
}

// RowsOf makes rows of events, with their offsets, numbers and marks.
func RowsOf(events ...Event) *Rows {
	r := &Rows{}
	r.Add(events...)
	return r
}

// Add appends events as rows: while the rows are being made, by who makes them.
func (r *Rows) Add(events ...Event) {
	if len(events) == 0 {
		return
	}
	for i := range events {
		e := &events[i]
		r.List = append(r.List, Row{Offset: e.Offset, To: e.To, Number: e.Row, Frame: int32(len(r.Frames)), At: int32(i)})
	}
	r.Frames = append(r.Frames, whole(events))
}

// Len is the number of rows.
func (r *Rows) Len() int {
	if r == nil {
		return 0
	}
	return len(r.List)
}

// Head sets e to the i-th row without its data.
func (r *Rows) Head(i int, e *Event) {
	x := &r.List[i]
	r.Frames[x.Frame].Event(int(x.At), e)
	e.Offset, e.To, e.Row, e.Data = x.Offset, x.To, x.Number, nil
}

// Event sets e to the i-th row. Its data lie in buf, which is returned, grown if need
// be; so they are valid until buf is used again.
func (r *Rows) Event(i int, e *Event, buf []byte) []byte {
	r.Head(i, e)
	x := &r.List[i]
	if buf = r.Frames[x.Frame].AppendData(buf[:0], int(x.At)); len(buf) > 0 {
		e.Data = buf[:len(buf):len(buf)]
	}
	return buf
}

// Whole gives the rows as events, each with data of its own.
func (r *Rows) Whole() []Event {
	all := make([]Event, r.Len())
	for i := range all {
		r.Event(i, &all[i], nil)
	}
	return all
}

// Only gives the rows for which take is true.
func (r *Rows) Only(take func(*Row) bool) *Rows {
	out := &Rows{List: make([]Row, 0, len(r.List)), Frames: r.Frames}
	for i := range r.List {
		if take(&r.List[i]) {
			out.List = append(out.List, r.List[i])
		}
	}
	return out
}

// Events counts those of which there are rows, at or behind an offset.
func (r *Rows) Events(from int64) (n int64) {
	last := int64(-1)
	for i := range r.List {
		if at := r.List[i].Offset; at >= from && at != last {
			last = at
			n++
		}
	}
	return n
}

// Size is the number of bytes that the rows take, roughly.
func (r *Rows) Size() int {
	if r == nil {
		return 0
	}
	n := RowSize * cap(r.List)
	for _, f := range r.Frames {
		n += f.Size()
	}
	return n
}

// whole are rows that are events.
type whole []Event

// wholeSize is about what an event takes beside its data.
const wholeSize = 512

// Event implements Frame.
func (w whole) Event(at int, e *Event) { *e = w[at] }

// AppendData implements Frame.
func (w whole) AppendData(dst []byte, at int) []byte { return append(dst, w[at].Data...) }

// Size implements Frame.
func (w whole) Size() int {
	n := wholeSize * len(w)
	for i := range w {
		n += len(w[i].Data)
	}
	return n
}
