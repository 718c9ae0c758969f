// Command goverify judges with Go's own TLS and X.509: one JSON object a line on standard input, one answer a line.
//
// A case is two ends of a mutual TLS 1.3 handshake, each of which verifies the other as a SPIFFE peer does: chain and
// key usage count, and not the host name. An empty "error" means that both ends were content.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const bound = 20 * time.Second

type end struct {
	Chain string   `json:"chain"`
	Key   string   `json:"key"`
	Roots []string `json:"roots"`
	// Offset: seconds by which its clock is ahead.
	Offset int `json:"offset"`
}

type question struct {
	Server end `json:"server"`
	Client end `json:"client"`
}

type answer struct {
	Error string `json:"error"`
}

func config(side end, usage x509.ExtKeyUsage) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(side.Chain), []byte(side.Key))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(strings.Join(side.Roots, ""))) {
		return nil, errors.New("no root could be read")
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{pair},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // replaced by what follows: there is no host name to compare
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			return verify(raw, roots, usage, time.Now().Add(time.Duration(side.Offset)*time.Second))
		},
	}, nil
}

func verify(raw [][]byte, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	if len(raw) == 0 {
		return errors.New("the peer showed no certificate")
	}
	leaf, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return err
	}
	others := x509.NewCertPool()
	for _, der := range raw[1:] {
		other, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		others.AddCert(other)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now,
	})
	return err
}

// connected returns both ends of a connection. net.Pipe would not do: it has no buffer, and an end that refuses while
// the other one writes would wait for ever.
func connected() (near, far net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if near, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if far, err = listener.Accept(); err != nil {
		near.Close()
		return nil, nil, err
	}
	return near, far, nil
}

func judge(asked question) error {
	server, err := config(asked.Server, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	client, err := config(asked.Client, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	near, far, err := connected()
	if err != nil {
		return err
	}
	defer near.Close()
	defer far.Close()
	deadline := time.Now().Add(bound)
	for _, side := range []net.Conn{near, far} {
		if err := side.SetDeadline(deadline); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(far, server)
		_, err := io.CopyN(conn, conn, 5)
		if err != nil {
			far.Close()
		}
		served <- err
	}()
	conn := tls.Client(near, client)
	heard := make([]byte, 5)
	_, err = conn.Write([]byte("hello"))
	if err == nil {
		_, err = io.ReadFull(conn, heard)
	}
	if err != nil {
		near.Close()
	}
	if refused := <-served; refused != nil {
		return fmt.Errorf("the server: %w; the client: %v", refused, err)
	}
	return err
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked question
		err = json.Unmarshal(line, &asked)
		if err == nil {
			err = judge(asked)
		}
		said := answer{}
		if err != nil {
			said.Error = err.Error()
		}
		if err := answers.Encode(said); err != nil {
			return
		}
	}
}
