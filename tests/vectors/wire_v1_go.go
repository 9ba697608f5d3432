//go:build ignore

// Writes known answers for the wire's version 1 by Go's own crypto/hpke (Go 1.26):
//
//	go run tests/vectors/wire_v1_go.go > tests/vectors/wire_v1_go.json
//
// It first opens the answers of tests/vectors/wire_v1.json, and fails if one of them is another than its own.
package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
)

type message struct {
	Seed               string   `json:"seed"`
	PublicKey          string   `json:"public_key"`
	EncapsulatedKey    string   `json:"encapsulated_key"`
	Head               string   `json:"head"`
	SealedHead         string   `json:"sealed_head"`
	ReplayID           string   `json:"replay_id"`
	Pieces             []string `json:"pieces"`
	Body               string   `json:"body"`
	Exported           string   `json:"exported"`
	ResponseNonce      string   `json:"response_nonce"`
	ResponseHead       string   `json:"response_head"`
	SealedResponseHead string   `json:"sealed_response_head"`
	ResponsePieces     []string `json:"response_pieces"`
	ResponseBody       string   `json:"response_body"`
}

type vectors struct {
	Source   string    `json:"source"`
	Messages []message `json:"messages"`
}

var info = []byte("server-keys request v1")

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func unhex(text string) []byte { return must(hex.DecodeString(text)) }

func random(length int) []byte {
	drawn := make([]byte, length)
	must(rand.Read(drawn))
	return drawn
}

func frame(ciphertext []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(ciphertext))), ciphertext...)
}

// response returns a function that seals what has the next number.
func response(exported, encapsulatedKey, nonce []byte) func([]byte) []byte {
	salt := append(bytes.Clone(encapsulatedKey), nonce...)
	extracted := must(hkdf.Extract(sha256.New, exported, salt))
	key := must(hkdf.Expand(sha256.New, extracted, "key", 32))
	base := must(hkdf.Expand(sha256.New, extracted, "nonce", 12))
	gcm := must(cipher.NewGCM(must(aes.NewCipher(key))))
	var number uint64
	return func(plaintext []byte) []byte {
		counted := bytes.Clone(base)
		low := binary.BigEndian.Uint64(counted[4:]) ^ number
		binary.BigEndian.PutUint64(counted[4:], low)
		number++
		return gcm.Seal(nil, counted, plaintext, nil)
	}
}

func check(known message) {
	private := must(hpke.MLKEM768X25519().NewPrivateKey(unhex(known.Seed)))
	recipient := must(hpke.NewRecipient(unhex(known.EncapsulatedKey), private, hpke.HKDFSHA256(), hpke.AES256GCM(), info))
	opened := must(recipient.Open(nil, unhex(known.SealedHead)))
	body := unhex(known.Body)
	for _, piece := range append(known.Pieces, "") {
		length := binary.BigEndian.Uint32(body)
		got := must(recipient.Open(nil, body[4:4+length]))
		if hex.EncodeToString(got) != piece {
			panic("another piece")
		}
		body = body[4+length:]
	}
	exported := must(recipient.Export("server-keys response v1", 32))
	seal := response(exported, unhex(known.EncapsulatedKey), unhex(known.ResponseNonce))
	sealedHead := seal(unhex(known.ResponseHead))
	var responseBody []byte
	for _, piece := range append(known.ResponsePieces, "") {
		responseBody = append(responseBody, frame(seal(unhex(piece)))...)
	}
	agrees := hex.EncodeToString(opened) == known.Head &&
		hex.EncodeToString(private.PublicKey().Bytes()) == known.PublicKey &&
		hex.EncodeToString(must(recipient.Export("server-keys replay v1", 8))) == known.ReplayID &&
		hex.EncodeToString(exported) == known.Exported && len(body) == 0 &&
		hex.EncodeToString(sealedHead) == known.SealedResponseHead &&
		hex.EncodeToString(responseBody) == known.ResponseBody
	if !agrees {
		panic("Go derives something else")
	}
}

func sealed(head string, pieces []string, responseHead string, responsePieces []string) message {
	seed := random(32)
	private := must(hpke.MLKEM768X25519().NewPrivateKey(seed))
	enc, sender, err := hpke.NewSender(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	must(enc, err)
	made := message{
		Seed: hex.EncodeToString(seed), PublicKey: hex.EncodeToString(private.PublicKey().Bytes()),
		EncapsulatedKey: hex.EncodeToString(enc), Head: hex.EncodeToString([]byte(head)),
		SealedHead: hex.EncodeToString(must(sender.Seal(nil, []byte(head)))),
		ReplayID:   hex.EncodeToString(must(sender.Export("server-keys replay v1", 8))),
		Pieces:     []string{}, ResponsePieces: []string{},
		ResponseHead: hex.EncodeToString([]byte(responseHead)),
	}
	var body, responseBody []byte
	for _, piece := range pieces {
		made.Pieces = append(made.Pieces, hex.EncodeToString([]byte(piece)))
		body = append(body, frame(must(sender.Seal(nil, []byte(piece))))...)
	}
	made.Body = hex.EncodeToString(append(body, frame(must(sender.Seal(nil, nil)))...))
	exported, nonce := must(sender.Export("server-keys response v1", 32)), random(32)
	made.Exported, made.ResponseNonce = hex.EncodeToString(exported), hex.EncodeToString(nonce)
	seal := response(exported, enc, nonce)
	made.SealedResponseHead = hex.EncodeToString(seal([]byte(responseHead)))
	for _, piece := range responsePieces {
		made.ResponsePieces = append(made.ResponsePieces, hex.EncodeToString([]byte(piece)))
		responseBody = append(responseBody, frame(seal([]byte(piece)))...)
	}
	made.ResponseBody = hex.EncodeToString(append(responseBody, frame(seal(nil))...))
	return made
}

func main() {
	var known vectors
	if err := json.Unmarshal(must(os.ReadFile("tests/vectors/wire_v1.json")), &known); err != nil {
		panic(err)
	}
	for _, one := range known.Messages {
		check(one)
	}
	written := vectors{Source: "tests/vectors/wire_v1_go.go, by crypto/hpke of Go 1.26", Messages: []message{
		sealed("POST /v1/chat/completions", []string{"a question", " in two pieces"}, "200", []string{"an", " answer"}),
		sealed("DELETE /v1/files/1 end", nil, "204 end", nil),
	}}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(written); err != nil {
		panic(err)
	}
}
