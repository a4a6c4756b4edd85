package clickhouse

import (
	"errors"
	"slices"

	"naru/internal/fault"
)

// codeOf is ClickHouse's number of an error; 0: it is none of the server's.
func codeOf(err error) int {
	var e *serverError
	if errors.As(err, &e) {
		return e.code
	}
	return 0
}

// refusing are the errors by which the server says that it never takes a row: it
// cannot be parsed as the columns' types, or breaks a constraint.
var refusing = []int{6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 130, 321, 349, 376, 407, 441, 469, 675, 676, 691}

// refuses tells whether rows are refused for what they hold.
func refuses(err error) bool { return slices.Contains(refusing, codeOf(err)) }

// passing are the errors of what may go away by itself: timeouts, memory, disks, too
// many parts or queries, Keeper, replicas, the network behind the server.
var passing = []int{3, 159, 160, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 254, 279, 285, 286, 319, 394, 425, 439, 473, 517, 574, 745, 999, 1000}

// cures are what an operator can do.
var cures = map[int]string{
	16:  "add the column, or set create: true",
	36:  "look at the settings engine and order_by, or create the table yourself",
	44:  "a column of order_by cannot be null: leave it out of order_by, or create the table yourself",
	60:  "create the table, or set create: true",
	81:  "create the database, or name another in table",
	115: "the server is older than this sink needs: ClickHouse 22.8",
	164: "the user may only read: give it another profile, or set another user",
	192: "create the user, or set another",
	193: "set user and password_env so that the user may log in",
	194: "set user and password_env so that the user may log in",
	241: "give the server more memory, or set a smaller bytes for the sink",
	252: "set a longer every for the sink: each commit is an insert",
	497: "GRANT the user SELECT and INSERT on the table and on naru_positions (and CREATE TABLE, DROP TABLE and ALTER ADD COLUMN with create: true)",
	516: "set user and password_env so that the user may log in",
}

// classify marks what may pass, and adds the cure.
func classify(err error) error {
	var e *serverError
	code := codeOf(err)
	// Without a number of the server it is the network, a proxy, or the server is not there.
	if !errors.As(err, &e) || code == 0 && e.status >= 500 || slices.Contains(passing, code) {
		err = fault.Transient(err)
	}
	if hint := cures[code]; hint != "" {
		return fault.WithHint(err, "%s", hint)
	}
	if e != nil && code == 0 && e.status < 500 {
		return fault.WithHint(err, "see that url names the HTTP interface of ClickHouse")
	}
	return err
}
