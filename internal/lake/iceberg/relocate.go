package iceberg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	ice "github.com/apache/iceberg-go"
	"github.com/twmb/avro/ocf"
)

// mover copies what leads to a table's data, and where the copy is to stand at
// another place writes the new paths into it. A file that gets other paths gets
// another checksum, and so another name: hence from the manifests up.
type mover struct {
	*lakeCopier
	head   *head
	folder string            // of the table, below the warehouse
	lists  map[string]string // locations of manifest lists, old to new
	done   map[string]movedFile
}

// movedFile is a manifest as the copy has it.
type movedFile struct {
	location string
	length   int64
}

// rebase turns a location of the original into one of the copy.
func (c *lakeCopier) rebase(location string) (string, error) {
	rel, err := c.rel(location)
	if err != nil {
		return "", err
	}
	return scheme + c.root + rel, nil
}

// own writes a file that naru names by its content, and returns its location.
func (m *mover) own(b []byte, name func(location string, b []byte) string) (string, error) {
	location := name(scheme+m.root+m.folder, b)
	rel, err := below(m.root, location)
	if err != nil {
		return "", err
	}
	return location, m.write(m.to+rel, b)
}

// manifest copies a manifest.
func (m *mover) manifest(file ice.ManifestFile, b []byte) error {
	if !m.moved() {
		m.done[file.FilePath()] = movedFile{file.FilePath(), file.Length()}
		return m.writeAt(file.FilePath(), b)
	}
	if file.ManifestContent() != ice.ManifestContentData {
		return unfit(ErrRowDeletes, "their files name data files by path: let the other engine rewrite the data files first (in Spark: CALL system.rewrite_data_files with delete-file-threshold 1)")
	}
	moved, err := eachRecord(b, func(entry map[string]any) error {
		data, ok := entry["data_file"].(map[string]any)
		if !ok {
			return errors.New("an entry without a data file")
		}
		location, ok := data["file_path"].(string)
		if !ok {
			return errors.New("a data file without a path")
		}
		to, err := m.rebase(location)
		if err != nil && fmt.Sprint(entry["status"]) == fmt.Sprint(int(ice.EntryStatusDELETED)) {
			return nil // it was elsewhere, and is in the table no more
		}
		data["file_path"] = to
		return err
	})
	if err != nil {
		return fmt.Errorf("move manifest %s: %w", file.FilePath(), err)
	}
	location, err := m.own(moved, m.lake.manifestPath)
	m.done[file.FilePath()] = movedFile{location, int64(len(moved))}
	return err
}

// list copies a manifest list, all of whose manifests were copied.
func (m *mover) list(location string, b []byte) error {
	if !m.moved() {
		return m.writeAt(location, b)
	}
	moved, err := eachRecord(b, func(file map[string]any) error {
		location, _ := file["manifest_path"].(string)
		to, ok := m.done[location]
		if !ok {
			return fmt.Errorf("manifest %q is not known", location)
		}
		file["manifest_path"], file["manifest_length"] = to.location, to.length
		return nil
	})
	if err != nil {
		return fmt.Errorf("move manifest list %s: %w", location, err)
	}
	m.lists[location], err = m.own(moved, m.lake.manifestPath)
	return err
}

// metadata writes the table's metadata file with its new paths and returns its
// location.
func (m *mover) metadata(h *copiedHead, b []byte) (string, error) {
	if !m.moved() {
		return h.location, nil
	}
	moved, err := m.moveMetadata(b)
	if err != nil {
		return "", fmt.Errorf("move metadata file %s: %w", h.location, err)
	}
	location, err := m.own(moved, func(table string, b []byte) string {
		return m.lake.metadataPath(table, metadataVersion(h.location), b)
	})
	if err != nil {
		return "", err
	}
	m.out.Files, m.out.Bytes = m.out.Files-1, m.out.Bytes-int64(len(b))
	return location, m.lake.fs.Remove(m.placeOf(h.location))
}

// pathProperties are table properties that hold paths.
var pathProperties = []string{"write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path"}

// moveMetadata changes the paths in a metadata file. It keeps what it does not
// know. The log of earlier metadata files is emptied: they stay behind, since
// what they lead to may be gone.
func (m *mover) moveMetadata(b []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var meta map[string]any
	if err := dec.Decode(&meta); err != nil {
		return nil, err
	}
	set := func(in map[string]any, key string) error {
		location, ok := in[key].(string)
		if !ok {
			return fmt.Errorf("no %s", key)
		}
		to, err := m.rebase(location)
		in[key] = to
		return err
	}
	errs := []error{set(meta, "location")}
	each := func(list string, fn func(map[string]any) error) {
		all, _ := meta[list].([]any)
		for _, one := range all {
			object, ok := one.(map[string]any)
			if !ok {
				errs = append(errs, fmt.Errorf("%s is not a list of objects", list))
				return
			}
			errs = append(errs, fn(object))
		}
	}
	each("snapshots", func(s map[string]any) error {
		location, _ := s["manifest-list"].(string)
		to, ok := m.lists[location]
		if !ok {
			return fmt.Errorf("manifest list %q is not known", location)
		}
		s["manifest-list"] = to
		return nil
	})
	each("statistics", func(s map[string]any) error { return set(s, "statistics-path") })
	each("partition-statistics", func(s map[string]any) error { return set(s, "statistics-path") })
	meta["metadata-log"] = []any{}
	if props, ok := meta["properties"].(map[string]any); ok {
		// Newer metadata files stay behind too; what they tell goes into the property.
		if reached := m.head.reached(); !reached.Equal(m.head.property) {
			props[keyPositions] = reached.String()
		}
		for _, key := range pathProperties {
			if _, ok := props[key]; ok {
				errs = append(errs, set(props, key))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return json.Marshal(meta)
}

// eachRecord decodes an Avro file, lets fn change each record, and encodes it
// again under the same schema, with the same metadata and codec. So what fn does
// not touch stays, of whichever engine.
func eachRecord(b []byte, fn func(map[string]any) error) (_ []byte, err error) {
	defer recovered(&err)
	in, err := ocf.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	kept := map[string][]byte{}
	for key, value := range in.Metadata() {
		if !strings.HasPrefix(key, "avro.") {
			kept[key] = value
		}
	}
	options := []ocf.WriterOpt{ocf.WithMetadata(kept), ocf.WithSchema(string(in.Metadata()["avro.schema"]))}
	switch codec := string(in.Metadata()["avro.codec"]); codec {
	case "", "null":
	default: // naru and all engines that we know write deflate; the others' readers know it too
		options = append(options, ocf.WithCodec(ocf.DeflateCodec(-1)))
	}
	var out bytes.Buffer
	w, err := ocf.NewWriter(&out, in.Schema(), options...)
	if err != nil {
		return nil, err
	}
	for {
		var record map[string]any
		if err := in.Decode(&record); errors.Is(err, io.EOF) {
			return finish(w, &out)
		} else if err != nil {
			return nil, err
		}
		if err := fn(record); err != nil {
			return nil, err
		}
		if err := w.Encode(record); err != nil {
			return nil, err
		}
	}
}

func finish(w *ocf.Writer, out *bytes.Buffer) ([]byte, error) {
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
