package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// store is a double of S3, of what the sink asks of it: PUT and HEAD of an object.
// Unlike a real one it can be made to fail.
type store struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte // by bucket and key
	puts    map[string]int
	// fault, when set, decides about a request: false, it has answered itself. With
	// kept, a PUT has been stored.
	fault func(w http.ResponseWriter, r *http.Request, kept func()) bool
}

func newStore(t *testing.T) *store {
	x := &store{objects: map[string][]byte{}, puts: map[string]int{}}
	x.Server = httptest.NewServer(x)
	t.Cleanup(func() {
		x.CloseClientConnections()
		x.Close()
	})
	return x
}

func (x *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/")
	kept := func() {
		if r.Method == http.MethodDelete {
			delete(x.objects, key)
		}
		if r.Method == http.MethodPut {
			x.objects[key] = body
			x.puts[key]++
		}
	}
	if x.fault != nil && !x.fault(w, r, kept) {
		return
	}
	switch sum := sha256.Sum256(body); {
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]):
		refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch")
	case r.Method == http.MethodPut:
		kept()
	case r.Method == http.MethodDelete:
		kept()
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodHead && x.objects[key] != nil:
		w.Header().Set("Last-Modified", "Sun, 01 Mar 2026 00:00:00 GMT")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>so it is</Message></Error>`, code)
}

func (x *store) keys() (keys []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for key := range x.objects {
		keys = append(keys, strings.TrimPrefix(key, "lake/"))
	}
	return keys
}

func (x *store) ids(t *testing.T) (ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for key, b := range x.objects {
		ids = append(ids, idsOf(t, key, b)...)
	}
	return ids
}

func idsOf(t *testing.T, key string, b []byte) (ids []string) {
	t.Helper()
	if path.Ext(key) == ".gz" {
		z, err := gzip.NewReader(bytes.NewReader(b))
		require.NoError(t, err)
		b, err = io.ReadAll(z)
		require.NoError(t, err)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		var one struct {
			ID string `json:"_id"`
		}
		require.NoError(t, json.Unmarshal([]byte(line), &one))
		ids = append(ids, one.ID)
	}
	return ids
}

// world is a disk and a store.
type world struct {
	fs    *vfs.Memory
	store *store
	cfg   Settings
}

func newWorld(t *testing.T) *world {
	w := &world{fs: vfs.NewMemory(), store: newStore(t), cfg: DefaultSettings()}
	w.cfg.Bucket, w.cfg.Endpoint = "lake", w.store.URL
	return w
}

var secrets = map[string]string{"AWS_ACCESS_KEY_ID": "naru", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}

func (w *world) open(ctx context.Context) (sink.Sink, error) {
	if err := w.cfg.Validate(); err != nil {
		return nil, err
	}
	return w.cfg.Open(ctx, sink.Env{Pipeline: "p", Name: "s3", Stream: "events", Reader: "pipeline/p/s3", Dir: "/p", State: "/p/data/pipelines/p/s3", FS: w.fs,
		Getenv: func(name string) string { return secrets[name] }, Logger: slog.New(slog.DiscardHandler)})
}

// The same on MinIO.
func TestMinIO(t *testing.T) {
	u, err := url.Parse(sinktest.Engine(t, "minio"))
	require.NoError(t, err)
	password, _ := u.User.Password()
	client, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(u.User.Username(), password, ""), Region: "us-east-1"})
	require.NoError(t, err)
	n := 0
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		n++
		w := &world{fs: vfs.NewMemory(), cfg: DefaultSettings()}
		w.cfg.Bucket, w.cfg.Endpoint, w.cfg.Path = fmt.Sprint("naru-", n), "http://"+u.Host, "raw &+ü/id={_id}"
		w.cfg.AccessKeyEnv, w.cfg.SecretKeyEnv = "USER", "PASSWORD"
		secrets["USER"], secrets["PASSWORD"] = u.User.Username(), password
		s, err := w.open(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(sinktest.Lives[1], 7, 0, sinktest.Events("early", 1)...)))
		_, err = s.(sink.Drainer).Drain(t.Context())
		require.ErrorContains(t, err, "bucket does not exist")
		require.NoError(t, s.Close())
		w.fs = vfs.NewMemory() // and forget it
		require.NoError(t, client.MakeBucket(t.Context(), w.cfg.Bucket, minio.MakeBucketOptions{}))
		return sinktest.Harness{
			Exact: true, Rewinds: sinktest.Anywhere,
			Open: func(t *testing.T) sink.Sink {
				s, err := w.open(t.Context())
				require.NoError(t, err)
				return s
			},
			IDs: func(t *testing.T) (ids []string) {
				for o := range client.ListObjects(t.Context(), w.cfg.Bucket, minio.ListObjectsOptions{Recursive: true}) {
					require.NoError(t, o.Err)
					obj, err := client.GetObject(t.Context(), w.cfg.Bucket, o.Key, minio.GetObjectOptions{})
					require.NoError(t, err)
					b, err := io.ReadAll(obj)
					require.NoError(t, err)
					ids = append(ids, idsOf(t, o.Key, b)...)
				}
				return ids
			},
		}
	})
}
