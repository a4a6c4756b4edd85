package config

import "path/filepath"

// FileName is the settings file of a folder.
const FileName = "naru.yaml"

// Folder is a project's folder; its path is absolute.
type Folder string

// OpenFolder makes dir absolute. It touches nothing.
func OpenFolder(dir string) (Folder, error) {
	abs, err := filepath.Abs(dir)
	return Folder(abs), err
}

// Settings is the file naru.yaml.
func (f Folder) Settings() string { return filepath.Join(string(f), FileName) }

// Contracts holds what the event types look like.
func (f Folder) Contracts() string { return filepath.Join(string(f), "contracts") }

// Pipelines holds what is read, computed and brought where.
func (f Folder) Pipelines() string { return filepath.Join(string(f), "pipelines") }

// Data holds everything that naru writes; never in git.
func (f Folder) Data() string { return filepath.Join(string(f), "data") }

// Log holds the segments.
func (f Folder) Log() string { return filepath.Join(f.Data(), "log") }

// Lake is the warehouse.
func (f Folder) Lake() string { return filepath.Join(f.Data(), "lake") }

// Dedupe holds the ids by which duplicates are found; made again from the log when
// it is not there.
func (f Folder) Dedupe() string { return filepath.Join(f.Data(), "dedupe") }

// PipelineState holds what pipelines keep beside their positions.
func (f Folder) PipelineState() string { return filepath.Join(f.Data(), "pipelines") }

// HotTail holds rows that are not yet committed, for queries; emptied at start.
func (f Folder) HotTail() string { return filepath.Join(f.Data(), "hot") }

// Spill is where queries put what does not fit their memory; emptied at start.
func (f Folder) Spill() string { return filepath.Join(f.Data(), "spill") }

// Projects are the folders that belong to git, with what they are for.
func (f Folder) Projects() []struct{ Name, What string } {
	return []struct{ Name, What string }{
		{"contracts", "what each event type looks like, who owns it (Open Data Contract Standard)"},
		{"pipelines", "stream, SQL steps, sinks"},
		{"models", "a dbt-compatible project"},
		{"rollups", "real-time aggregate tables"},
		{"experiments", "A/B tests"},
		{"sources", "databases and APIs to ingest"},
	}
}
