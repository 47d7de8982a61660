// Command reader holds a trail of ours against the stock Go readers of C2SP formats: golang.org/x/mod/sumdb/note and tlog.
//
//	reader check TRAIL [OLD-CHECKPOINT]   signed note, tree, every entry, and that OLD-CHECKPOINT is a past of it
//	reader proof FILE VKEY LEAF           a tlog-proof of the leaf whose bytes stand in LEAF
//	reader sign NAME                      sign standard input with a fresh key; print its verifier key, then the note
//
// It exits 4 and says where, if anything does not hold.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "check":
		return check(args[1], args[2:])
	case len(args) == 4 && args[0] == "proof":
		return proof(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "sign":
		return sign(args[1])
	}
	return fmt.Errorf("usage: reader check TRAIL [OLD-CHECKPOINT] | proof FILE VKEY LEAF | sign NAME")
}

// tree opens a checkpoint: a signed note of which the first three lines are origin, size and root.
func tree(text []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("vkey: %w", err)
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("checkpoint: not one of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checkpoint: size: %w", err)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("checkpoint: root")
	}
	head := tlog.Tree{N: size}
	copy(head.Hash[:], root)
	return head, nil
}

// tiles reads hash tiles as C2SP tlog-tiles lays them out: as x/mod does, without the height in the path.
type tiles struct{ folder string }

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, 0, len(wanted))
	for _, each := range wanted {
		path := strings.Replace(each.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.folder, path))
		if err != nil {
			return nil, err
		}
		if len(data) != each.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes", path, len(data))
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func check(folder string, old []string) error {
	vkey, err := os.ReadFile(filepath.Join(folder, "vkey"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return err
	}
	head, err := tree(text, string(vkey))
	if err != nil {
		return err
	}
	// It gives no hash that does not lead to the root.
	hashes := tlog.TileHashReader(head, tiles{folder})
	if err := entries(folder, head, hashes); err != nil {
		return err
	}
	for _, path := range old {
		if err := past(path, string(vkey), head, hashes); err != nil {
			return err
		}
	}
	fmt.Println(head.N)
	return nil
}

func entries(folder string, head tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < head.N; first += 1 << height {
		width := head.N - first
		if width > 1<<height {
			width = 1 << height
		}
		tile := tlog.Tile{H: height, L: 0, N: first >> height, W: int(width)}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		for number := first; number < first+width; number++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return fmt.Errorf("%s: cut off at leaf %d", path, number)
			}
			end := 2 + int(binary.BigEndian.Uint16(data))
			proof, err := tlog.ProveRecord(head.N, number, hashes)
			if err != nil {
				return fmt.Errorf("leaf %d: %w", number, err)
			}
			if err := tlog.CheckRecord(proof, head.N, head.Hash, number, tlog.RecordHash(data[2:end])); err != nil {
				return fmt.Errorf("leaf %d: %w", number, err)
			}
			data = data[end:]
		}
		if len(data) != 0 {
			return fmt.Errorf("%s: %d bytes too many", path, len(data))
		}
	}
	return nil
}

func past(path, vkey string, head tlog.Tree, hashes tlog.HashReader) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, err := tree(text, vkey)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	proof, err := tlog.ProveTree(head.N, before.N, hashes)
	if err != nil {
		return fmt.Errorf("from %d to %d leaves: %w", before.N, head.N, err)
	}
	if err := tlog.CheckTree(proof, head.N, head.Hash, before.N, before.Hash); err != nil {
		return fmt.Errorf("from %d to %d leaves: %w", before.N, head.N, err)
	}
	return nil
}

// proof checks a C2SP tlog-proof: a head line, perhaps an extra line, index, hashes, an empty line, the checkpoint.
func proof(file, vkey, leaf string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	record, err := os.ReadFile(leaf)
	if err != nil {
		return err
	}
	body, checkpoint, found := strings.Cut(string(text), "\n\n")
	if !found {
		return fmt.Errorf("proof: no checkpoint")
	}
	lines := strings.Split(body, "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("proof: begins with %q", lines[0])
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return fmt.Errorf("proof: no index")
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return fmt.Errorf("proof: index: %w", err)
	}
	var path tlog.RecordProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return fmt.Errorf("proof: %w", err)
		}
		path = append(path, hash)
	}
	head, err := tree([]byte(checkpoint), vkey)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(path, head.N, head.Hash, number, tlog.RecordHash(record))
}

func sign(name string) error {
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s", public, signed)
	return nil
}
