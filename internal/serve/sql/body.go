package sql

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"naru/internal/web"
)

// statement reads the SQL out of a request.
func (h *handler) statement(w http.ResponseWriter, r *http.Request) (string, error) {
	asJSON, err := isJSON(r.Header)
	if err != nil {
		return "", err
	}
	limit := int64(h.cfg.MaxSQL)
	most := limit
	if asJSON {
		most = 6*limit + 1024 // every byte may be written \u00xx
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return "", h.unreadable(err)
	}
	sql := string(body)
	if asJSON {
		if sql, err = parseBody(body); err != nil {
			return "", &web.Error{Status: http.StatusBadRequest, Title: "unreadable body", Detail: err.Error(), Err: err}
		}
	}
	if int64(len(sql)) > limit {
		return "", h.tooLong()
	}
	return sql, nil
}

func (h *handler) tooLong() error {
	return &web.Error{
		Status: http.StatusRequestEntityTooLarge, Title: "statement too long", Close: true,
		Detail: fmt.Sprintf("a statement may have %s (query.max_sql); put long lists of values into a table", h.cfg.MaxSQL),
	}
}

func (h *handler) unreadable(err error) error {
	var large *http.MaxBytesError
	var known *web.Error
	switch {
	case errors.As(err, &large):
		return h.tooLong()
	case errors.As(err, &known):
		return err
	}
	return &web.Error{Status: http.StatusBadRequest, Title: "unreadable body", Detail: "the body broke off: " + err.Error(), Close: true, Err: err}
}

const bodyHelp = `send the SQL itself with Content-Type: text/plain, or {"sql": "..."} with application/json`

// isJSON decides by the media type how the SQL is wrapped.
func isJSON(h http.Header) (bool, error) {
	refuse := func(format string, args ...any) error {
		return &web.Error{Status: http.StatusUnsupportedMediaType, Title: "unsupported media type", Detail: fmt.Sprintf(format, args...) + "; " + bodyHelp, Close: true}
	}
	if c := strings.TrimSpace(h.Get("Content-Encoding")); c != "" && !strings.EqualFold(c, "identity") {
		return false, refuse("Content-Encoding %q is not taken here: send the statement uncompressed", c)
	}
	header := h.Get("Content-Type")
	if strings.TrimSpace(header) == "" {
		return false, nil
	}
	media, params, err := mime.ParseMediaType(header)
	if err != nil {
		return false, refuse("Content-Type %q cannot be read", header)
	}
	if c := strings.ToLower(params["charset"]); c != "" && c != "utf-8" && c != "utf8" && c != "us-ascii" {
		return false, refuse("charset %q is not taken: a statement is UTF-8", params["charset"])
	}
	switch media {
	case "text/plain", "application/sql", "application/x-www-form-urlencoded": // curl -d says the last of anything
		return false, nil
	case "application/json":
		return true, nil
	}
	return false, refuse("Content-Type %q is not taken", media)
}

// parseBody reads {"sql": "..."}: that one key, once, and nothing behind it.
func parseBody(body []byte) (string, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return "", bodyError(dec, err, `the body is not an object; `+bodyHelp)
	}
	sql, found := "", false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return "", bodyError(dec, err, "")
		}
		if key != "sql" {
			return "", fmt.Errorf("the key %q is not known: the only one is \"sql\"", key)
		}
		if found {
			return "", errors.New(`the key "sql" stands there twice`)
		}
		found = true
		value, err := dec.Token()
		if err != nil {
			return "", bodyError(dec, err, "")
		}
		text, ok := value.(string)
		if !ok {
			return "", errors.New(`the value of "sql" is not a text`)
		}
		sql = text
	}
	if _, err := dec.Token(); err != nil {
		return "", bodyError(dec, err, "")
	}
	if _, err := dec.Token(); err != io.EOF {
		return "", fmt.Errorf("something follows the object at byte %d", dec.InputOffset())
	}
	if !found {
		return "", errors.New(`the key "sql" is missing`)
	}
	return sql, nil
}

func bodyError(dec *json.Decoder, err error, otherwise string) error {
	if err == nil {
		return errors.New(otherwise)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the body is not JSON at byte %d: %w", dec.InputOffset(), err)
}
