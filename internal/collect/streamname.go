package collect

import (
	"fmt"
	"strings"

	"naru/internal/event"
)

// maxStreamName is the longest stream name in bytes.
const maxStreamName = 64

// CheckStream tells whether clients may post to a stream of that name. A stream
// is a namespace of tables and a folder, so a name is one to 64 of the
// characters a-z, 0-9, "_" and "-", and begins with a letter or a digit: dots
// would make levels of namespaces. Names that begin with "_" and `rejected` are
// naru's own; information_schema and pg_catalog belong to SQL.
func CheckStream(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the stream's name is empty")
	case len(name) > maxStreamName:
		return fmt.Errorf("stream %.20q... has %d characters, at most %d", name, len(name), maxStreamName)
	case name == event.RejectedStream:
		return fmt.Errorf("stream %q is where refused events go; post to the stream they are meant for", name)
	case name == event.RejectedStates:
		return fmt.Errorf("stream %q is where naru keeps what has become of refused events", name)
	case name[0] == '_':
		return fmt.Errorf("stream %q: names that begin with _ are reserved", name)
	case name == "information_schema" || name == "pg_catalog":
		return fmt.Errorf("stream %q: that name belongs to SQL", name)
	case name[0] == '-':
		return fmt.Errorf("stream %q: a name begins with a letter or a digit", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			hint := ""
			if low := strings.ToLower(name); low != name && CheckStream(low) == nil {
				hint = fmt.Sprintf(" (did you mean %q?)", low)
			}
			return fmt.Errorf("stream %q: a name has only a-z, 0-9, _ and -%s", name, hint)
		}
	}
	return nil
}
