// Package s3 is the sink that writes rows into objects of S3 and of stores that
// speak its protocol. Files are written on the local disk, as the sink file does, and
// uploaded in place of being renamed: exactly once.
package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/file"
	"naru/internal/vfs"
)

// Kind is this sink as pipelines have it.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "s3",
		Settings:  func() sink.Settings { s := DefaultSettings(); return &s },
		Tabular:   func(s sink.Settings) bool { return s.(*Settings).Tabular() },
		Guarantee: "exactly once: an object appears whole, and each row is in one",
	}
}

// Settings of one sink.
type Settings struct {
	Bucket   string `yaml:"bucket"`
	Endpoint string `yaml:"endpoint"`
	Region   string `yaml:"region"`
	// Variables that hold the credentials; that of the session token may be empty.
	AccessKeyEnv    string `yaml:"access_key_env"`
	SecretKeyEnv    string `yaml:"secret_key_env"`
	SessionTokenEnv string `yaml:"session_token_env"`

	Timeout    quantity.Duration `yaml:"timeout"` // of one upload
	file.Files `yaml:",inline"`
}

// DefaultSettings are those of a sink of which only the bucket is given.
func DefaultSettings() Settings {
	return Settings{
		Endpoint: "https://s3.amazonaws.com", Region: "us-east-1",
		AccessKeyEnv: "AWS_ACCESS_KEY_ID", SecretKeyEnv: "AWS_SECRET_ACCESS_KEY", SessionTokenEnv: "AWS_SESSION_TOKEN",
		Timeout: quantity.Duration(5 * time.Minute),
		Files:   file.DefaultFiles(),
	}
}

// largest is what S3 takes in one request.
const largest = 4 * quantity.GiB

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Bucket == "" || strings.ContainsAny(s.Bucket, "/ ") {
		wrong("bucket: must be the name of one")
	}
	if u, err := url.Parse(s.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		wrong("endpoint: must be http://HOST or https://HOST, without a path, user or password")
	}
	if s.Region == "" {
		wrong("region: must be set: us-east-1 where the store has none")
	}
	if s.AccessKeyEnv == "" {
		wrong("access_key_env: must be the name of a variable")
	}
	if s.SecretKeyEnv == "" {
		wrong("secret_key_env: must be the name of a variable")
	}
	if s.Timeout.Std() < time.Millisecond || s.Timeout.Std() > 24*time.Hour {
		wrong("timeout: must be 1ms to 24h")
	}
	if s.Roll.Bytes > largest {
		wrong("roll.bytes: must be at most %s: an object is uploaded in one request", largest)
	}
	return errors.Join(append(errs, s.Files.Validate())...)
}

// Open implements sink.Settings: it uploads what a crash has left.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	secrets := make([]string, 3)
	for i, name := range []string{s.AccessKeyEnv, s.SecretKeyEnv, s.SessionTokenEnv} {
		if name != "" {
			secrets[i] = env.Getenv(name)
		}
		if secrets[i] == "" && i < 2 {
			return nil, fault.WithHint(fmt.Errorf("open sink %s: the variable %s is empty", env.Name, name), "set %s in the environment of naru serve, and start it again", name)
		}
	}
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("open sink %s: parse endpoint: %w", env.Name, err)
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(secrets[0], secrets[1], secrets[2]),
		Secure:     u.Scheme == "https",
		Region:     s.Region, // else each bucket is asked for its own
		MaxRetries: 1,        // the pipeline tries again
	})
	if err != nil {
		return nil, fmt.Errorf("open sink %s: %w", env.Name, err)
	}
	return file.Open(ctx, s.Files, env, file.Target{
		Dir: filepath.Join(env.State, "spool"), Flat: true,
		Place: &bucket{core: minio.Core{Client: client}, name: s.Bucket, fs: env.FS, timeout: s.Timeout.Std(), content: contentType(s.Files)},
	})
}

func contentType(f file.Files) string {
	switch {
	case f.Compress == "gzip" && f.Format != "avro" && f.Format != "parquet":
		return "application/gzip"
	case f.Compress == "zstd" && f.Format != "avro" && f.Format != "parquet":
		return "application/zstd"
	}
	return map[string]string{"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8", "tsv": "text/tab-separated-values; charset=utf-8",
		"avro": "application/vnd.apache.avro", "parquet": "application/vnd.apache.parquet"}[f.Format]
}

// bucket is a file.Place: finished files are uploaded, then removed.
type bucket struct {
	core    minio.Core
	name    string
	fs      vfs.FS
	timeout time.Duration
	content string // media type
}

var _ file.Place = (*bucket)(nil)

func key(p file.Published) string { return path.Join(p.Folder, p.Name) }

// Taken implements file.Place.
func (b *bucket) Taken(ctx context.Context, p file.Published) (bool, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	_, err := b.core.StatObject(ctx, b.name, key(p), minio.StatObjectOptions{})
	if err == nil {
		return true, nil
	}
	if said := minio.ToErrorResponse(err); said.Code == minio.NoSuchKey {
		return false, nil
	}
	return false, b.fail(ctx, "look for", p, err)
}

// Put implements file.Place. An upload is whole or not at all, and has a checksum
// that the store compares.
func (b *bucket) Put(ctx context.Context, temp string, p file.Published) (err error) {
	f, err := b.fs.Open(temp)
	if err != nil {
		return err
	}
	err = b.upload(ctx, f, p)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return b.fs.Remove(temp)
}

// Where implements file.Place.
func (b *bucket) Where() string { return b.core.EndpointURL().String() + "/" + b.name }

// Remove implements file.Place. The store does not say whether there was something.
func (b *bucket) Remove(ctx context.Context, folder, name string) error {
	p := file.Published{Folder: folder, Name: name}
	ctx, cancel := b.within(ctx)
	defer cancel()
	if err := b.core.RemoveObject(ctx, b.name, key(p), minio.RemoveObjectOptions{}); err != nil {
		return b.fail(ctx, "remove", p, err)
	}
	return nil
}

func (b *bucket) upload(ctx context.Context, f vfs.File, p file.Published) error {
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return fmt.Errorf("read %s: %w", p.Temp, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s: %w", p.Temp, err)
	}
	ctx, cancel := b.within(ctx)
	defer cancel()
	_, err = b.core.PutObject(ctx, b.name, key(p), f, size, "", hex.EncodeToString(sum.Sum(nil)),
		minio.PutObjectOptions{ContentType: b.content, DisableContentSha256: true}) // it is made already
	if err != nil {
		return b.fail(ctx, "upload", p, err)
	}
	return nil
}

func (b *bucket) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.timeout, fmt.Errorf("no answer within %s", b.timeout))
}

// fail says what has happened, and what is to be done unless it may pass.
func (b *bucket) fail(ctx context.Context, verb string, p file.Published, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	said := minio.ToErrorResponse(err)
	err = fmt.Errorf("%s s3://%s/%s: %w", verb, b.name, key(p), err)
	hint := ""
	switch {
	case said.Code == minio.NoSuchBucket:
		hint = "make the bucket, or correct bucket and region of the sink"
	case said.StatusCode == http.StatusForbidden, said.StatusCode == http.StatusUnauthorized:
		hint = "the credentials must allow s3:PutObject, s3:GetObject and s3:ListBucket there: without the last one nobody is told that an object is not there; a rewind needs s3:DeleteObject"
	case said.StatusCode == http.StatusMovedPermanently, said.Code == "AuthorizationHeaderMalformed":
		hint = "the bucket is in another region: correct region of the sink"
	default:
		return fault.Transient(err)
	}
	return fault.WithHint(err, "%s", hint)
}
