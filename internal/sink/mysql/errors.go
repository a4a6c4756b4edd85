package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	driver "github.com/go-mysql-org/go-mysql/mysql"

	"naru/internal/fault"
	"naru/internal/sink/relational"
)

// code is the number of an error of the server, else 0.
func code(err error) uint16 {
	var e *driver.MyError
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// refusing are the errors by which the server says that it never takes a row: of what
// the row holds, not of how things stand. The classes 22 (data), 23 (constraints) and
// 45 (SIGNAL in a trigger) of SQLSTATE say so too.
var refusing = []uint16{
	1118, // the row is too large
	1265, // data truncated
	1300, // not a character of the character set
	1366, // not a value of the type
	1369, // a view's WITH CHECK OPTION
	1411, // not a time
	1525, // not a value of the type
	3140, // not JSON
	3819, // a check constraint of MySQL
	4025, // and of MariaDB
}

// refusal is err as an error of a row; nil: it is none.
func refusal(err error) error {
	var e *driver.MyError
	if !errors.As(err, &e) {
		return nil
	}
	class := e.State[:min(2, len(e.State))]
	if !slices.Contains(refusing, e.Code) && class != "22" && class != "23" && class != "45" {
		return nil
	}
	return &relational.RowError{Err: fmt.Errorf("%s (%d)", e.Message, e.Code)}
}

// passing are the errors of what may go away by itself: too many connections, a
// restart, a full disk, a deadlock, a lock, a kill, a server that only reads for now.
var passing = []uint16{1021, 1037, 1040, 1041, 1053, 1114, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1203, 1205, 1206, 1213, 1226, 1290, 1317,
	1792, 1836, 1927, 1969, 2006, 2013, 3024, 3032, 4031}

// cures are what an operator can do.
var cures = []struct {
	code uint16
	hint string
}{
	{1044, "GRANT the user of the url its rights on the database"},
	{1045, "set user and password_env so that the user may log in"},
	{1049, "create the database, or name another in url"},
	{1142, "GRANT the user of the url SELECT, INSERT and UPDATE on the table and on naru_positions (and CREATE and ALTER with create: true)"},
	{1146, "create the table, or set create: true"},
	{1054, "add the column, or set create: true"},
	{1364, "give the column a default, or add it to the last step"},
	{1698, "set user and password_env so that the user may log in"},
	{1040, "raise max_connections of the server"},
	{1114, "make room on the server's disk"},
	{1021, "make room on the server's disk"},
	{1290, "the server only reads: name the primary in url"},
	{1836, "the server only reads: name the primary in url"},
}

// classify marks what may pass, and adds the cure.
func classify(err error) error {
	c := code(err)
	// Without a word of the server it is the network, or the server is not there.
	if c == 0 || slices.Contains(passing, c) {
		err = fault.Transient(err)
	}
	for _, cure := range cures {
		if c == cure.code {
			return fault.WithHint(err, "%s", cure.hint)
		}
	}
	if c == 0 && strings.Contains(err.Error(), "server does not support TLS") {
		return fault.WithHint(err, "turn on TLS at the server, or set tls: off")
	}
	return err
}
