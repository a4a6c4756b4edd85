package app

import (
	"context"
	"log/slog"
	"os"
	"slices"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/dedupe"
	"naru/internal/duck"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/pipeline"
	"naru/internal/serve/status"
	"naru/internal/sink"
	"naru/internal/sink/cassandra"
	"naru/internal/sink/clickhouse"
	"naru/internal/sink/elasticsearch"
	"naru/internal/sink/file"
	"naru/internal/sink/http"
	"naru/internal/sink/kafka"
	"naru/internal/sink/mysql"
	"naru/internal/sink/postgres"
	"naru/internal/sink/redis"
	"naru/internal/sink/s3"
	tostream "naru/internal/sink/stream"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/transform"
	"naru/internal/vfs"
)

// Kinds are the kinds of sinks that a pipeline's `to:` may name. tables may be nil
// where nothing is opened.
func Kinds(tables *table.Tables) []sink.Kind {
	return []sink.Kind{
		tables.Kind(),
		tostream.Kind(),
		kafka.Kind(),
		redis.Kind(),
		elasticsearch.Kind(),
		cassandra.Kind(),
		postgres.Kind(),
		mysql.Kind(),
		clickhouse.Kind(),
		http.Kind(),
		file.Kind(),
		s3.Kind(),
	}
}

// openSteps makes what computes the steps of pipelines over the tables of a lake. contracts
// are those in force; they may be nil.
func openSteps(cfg duck.StepsConfig, l *iceberg.Lake, read lake.Tables, contracts func() *contract.Set, logger *slog.Logger) (*duck.Steps, error) {
	return duck.NewSteps(cfg, duck.StepsDeps{Lake: read, Shape: l.Shape, Logger: logger,
		Schemas: func(ctx context.Context, stream string, types []string) ([]*columnar.Schema, error) {
			return schemas(ctx, l, contracts(), stream, types)
		}})
}

// schemas are the columns of the tables of some types of a stream's events, of all
// when there are none.
func schemas(ctx context.Context, l *iceberg.Lake, set *contract.Set, stream string, types []string) (out []*columnar.Schema, err error) {
	list, err := l.List(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(id lake.Ident) bool { return id.Namespace != stream })
	wanted := map[string]bool{}
	for _, typ := range types {
		name := lake.TableName(typ)
		if c := set.For(typ); c != nil && c.InForce() && slices.Contains(list, lake.Ident{Namespace: stream, Name: c.Table}) {
			name = c.Table // until it is there, events are in the type's own
		}
		wanted[name] = true
	}
	for _, id := range list {
		if len(wanted) > 0 && !wanted[id.Name] {
			continue
		}
		state, err := l.Table(id).Load(ctx)
		if err != nil {
			return nil, err
		}
		if state.Schema != nil {
			out = append(out, state.Schema)
		}
	}
	return out, nil
}

// openPipelines makes the pipelines of the folder pipelines/.
func openPipelines(cfg pipeline.Config, fsys vfs.FS, f config.Folder, log *dedupe.Log, raw stream.Log, tables *table.Tables, engine transform.Engine, logger *slog.Logger) *pipeline.Configured {
	return pipeline.NewConfigured(cfg, pipeline.Deps{
		FS: fsys, Folder: f.Pipelines(), StateDir: f.PipelineState(), Log: log, Raw: raw, Engine: engine, Kinds: Kinds(tables), Logger: logger,
		Env: sink.Env{Dir: string(f), FS: fsys, Getenv: os.Getenv, Logger: logger},
	})
}

// runPipelines runs the default pipelines and the configured ones; when one of both
// ends, so does the other.
func runPipelines(ctx context.Context, set *pipeline.Set, configured *pipeline.Configured) error {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- configured.Run(both)
	}()
	err := set.Run(both)
	cancel()
	if other := <-ended; err == nil {
		err = other
	}
	return err
}

// pipelineStatus is what /v1/status says of all pipelines.
func pipelineStatus(set *pipeline.Set, configured *pipeline.Configured) (out []status.Pipeline) {
	add := func(p pipeline.Status) {
		out = append(out, status.Pipeline{Name: p.Name, Stream: p.Stream, Progress: p.Progress, LastCommit: p.LastCommit, Error: p.LastError, Hint: p.Hint})
	}
	for _, p := range set.Status() {
		add(p)
	}
	for _, s := range configured.Status() {
		add(s.Status)
	}
	return out
}
