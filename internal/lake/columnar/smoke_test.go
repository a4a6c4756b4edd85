package columnar

import "testing"

func TestSmoke(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1,"b":"x","c":{"d":true,"e":[1,2]},"f":null,"g":[],"h":[{"x":1}]}`, `{"b":"ü\n\ud83d","a":1.5,"c":{"e":[null,3],"d":1}}`)
	x.commit()
	x.send(`{"a":1}`)
	x.commit()
	t.Log(x.kinds())
	for _, r := range x.rows() {
		t.Log(r)
	}
	for _, r := range x.rows("_id", "_type", "_time", "_log", "_offset", "_partition", "_received_at", "_source") {
		t.Log(r)
	}
	t.Log(x.schema.MarshalProperty())
}
