package secure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/sink"
	"naru/internal/vfs"
)

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, b := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: cert}, "k.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600))
	}
	env := sink.Env{Dir: dir, FS: vfs.OS()}

	off, err := TLS{}.Config(env)
	require.NoError(t, err)
	require.Nil(t, off)
	cfg, err := TLS{Enabled: true, CA: "c.pem", Cert: filepath.Join(dir, "c.pem"), Key: "k.pem"}.Config(env)
	require.NoError(t, err)
	require.NotNil(t, cfg.RootCAs)
	require.Len(t, cfg.Certificates, 1)

	for want, s := range map[string]TLS{
		"tls.enabled: must be true":                  {CA: "c.pem"},
		"tls: cert and key go together":              {Enabled: true, Cert: "c.pem"},
		"read tls.ca: open ":                         {Enabled: true, CA: "gone.pem"},
		"read tls.ca: k.pem has no certificate":      {Enabled: true, CA: "k.pem"},
		"read tls.cert and tls.key: tls: ":           {Enabled: true, Cert: "k.pem", Key: "k.pem"},
		"read tls.key: open " + dir + "/missing.pem": {Enabled: true, Cert: "c.pem", Key: "missing.pem"},
	} {
		err := s.Validate()
		if err == nil {
			_, err = s.Config(env)
		}
		require.ErrorContains(t, err, want)
	}
}
