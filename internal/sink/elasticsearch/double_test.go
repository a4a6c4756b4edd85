package elasticsearch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// double is a target built from the published bulk interface: it creates and indexes
// documents, and refuses what the real one refuses, item by item. It is not the real
// one: no server can be had where the tests run.
type double struct {
	*httptest.Server
	// answer may answer a request in place of the double.
	answer func(w http.ResponseWriter, r *http.Request) bool
	// item may say another status for an item, with an error's type; 0: it does not.
	item func(id string) (status int, kind string)

	mu struct {
		sync.Mutex
		docs     map[string]map[string]map[string]any // index, id
		versions map[string]int                       // of index/id
		refuse   map[string]bool                      // by the event's id
		requests []int                                // items in each
		header   http.Header                          // of the last
	}
}

func newDouble(t *testing.T) *double {
	d := &double{}
	d.mu.docs, d.mu.versions, d.mu.refuse = map[string]map[string]map[string]any{}, map[string]int{}, map[string]bool{}
	d.Server = httptest.NewServer(d)
	t.Cleanup(d.Close)
	return d
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.mu.header = r.Header.Clone()
	d.mu.Unlock()
	if d.answer != nil && d.answer(w, r) {
		return
	}
	if r.Method == http.MethodGet && r.URL.Path == "/" {
		fmt.Fprint(w, `{"version":{"number":"8.0.0"}}`)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/_bulk" {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone; nothing of it is done
	}
	if len(body) == 0 || body[len(body)-1] != '\n' {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":{"type":"illegal_argument_exception","reason":"The bulk request must be terminated by a newline [\\n]"},"status":400}`)
		return
	}
	var items []string
	lines := bufio.NewScanner(strings.NewReader(string(body)))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var action map[string]struct {
			Index string `json:"_index"`
			ID    string `json:"_id"`
		}
		if err := json.Unmarshal(lines.Bytes(), &action); err != nil || len(action) != 1 || !lines.Scan() {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"type":"illegal_argument_exception","reason":"Malformed action/metadata line"},"status":400}`)
			return
		}
		for op, a := range action {
			status, kind, why := d.do(op, a.Index, a.ID, lines.Bytes())
			item := fmt.Sprintf(`{%q:{"status":%d`, op, status)
			if kind != "" {
				item += fmt.Sprintf(`,"error":{"type":%q,"reason":%q}`, kind, why)
			}
			items = append(items, item+"}}")
		}
	}
	d.mu.Lock()
	d.mu.requests = append(d.mu.requests, len(items))
	d.mu.Unlock()
	fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ","))
}

// do is one item of a bulk request.
func (d *double) do(op, index, id string, line []byte) (status int, kind, why string) {
	if d.item != nil {
		if status, kind := d.item(id); status != 0 {
			return status, kind, "as the test wants it"
		}
	}
	doc, why := document(line)
	if why != "" {
		return http.StatusBadRequest, "document_parsing_exception", why
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := doc["naru"].(map[string]any); ok && d.mu.refuse[fmt.Sprint(e["id"])] {
		return http.StatusBadRequest, "document_parsing_exception", "[1:7] failed to parse field [n] of type [date]"
	}
	if d.mu.docs[index] == nil {
		d.mu.docs[index] = map[string]map[string]any{}
	}
	_, there := d.mu.docs[index][id]
	if op == "create" && there {
		return http.StatusConflict, "version_conflict_engine_exception", "document already exists (current version [1])"
	}
	d.mu.docs[index][id] = doc
	d.mu.versions[index+"/"+id]++
	if there {
		return http.StatusOK, "", ""
	}
	return http.StatusCreated, "", ""
}

// document reads a document as the target does: one object, no key twice, no names
// that it keeps for itself.
func document(line []byte) (doc map[string]any, why string) {
	dec := json.NewDecoder(strings.NewReader(string(line)))
	seen := map[string]bool{}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, "not_x_content_exception"
	}
	doc = map[string]any{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err.Error()
		}
		name := key.(string)
		var v any
		if err := dec.Decode(&v); err != nil {
			return nil, err.Error()
		}
		switch {
		case seen[name]:
			return nil, fmt.Sprintf("Duplicate field '%s'", name)
		case name == "":
			return nil, "field name cannot be an empty string"
		}
		switch name {
		case "_id", "_index", "_source", "_routing", "_version", "_seq_no", "_field_names", "_ignored":
			return nil, fmt.Sprintf("Field [%s] is a metadata field and cannot be added inside a document.", name)
		}
		seen[name], doc[name] = true, v
	}
	return doc, ""
}

// ids are those of the events whose documents are there.
func (d *double) ids() (ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, docs := range d.mu.docs {
		for _, doc := range docs {
			e, _ := doc["naru"].(map[string]any)
			ids = append(ids, fmt.Sprint(e["id"]))
		}
	}
	return ids
}

func (d *double) doc(index, id string) map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.docs[index][id]
}
