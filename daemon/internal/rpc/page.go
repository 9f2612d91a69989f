package rpc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// maxBasicPageSize is for endpoints without their counters.
	maxBasicPageSize = 10_000
	pageMACBytes     = 16
	// maxPageBytes keeps a page within the 4 MiB that gRPC clients take unless they are told otherwise: endpoints may
	// have large labels.
	maxPageBytes = 3 << 20
)

// pager makes page tokens: the last name of a page, sealed together with the filter that it belongs to. A list goes on
// behind that name whatever was created or deleted meanwhile. The key is the process's own: after a restart a token is
// refused, and the caller starts the list anew.
type pager struct{ key [32]byte }

func newPager() pager {
	var p pager
	_, _ = rand.Read(p.key[:]) // never fails, says crypto/rand
	return p
}

func (p pager) token(last, filter string) string {
	return base64.RawURLEncoding.EncodeToString(append(p.seal(last, filter), last...))
}

// after answers the name behind which a page starts.
func (p pager) after(token, filter string) (string, error) {
	if token == "" {
		return "", nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token) // else the last bits could be anything
	if err != nil || len(sealed) < pageMACBytes || !hmac.Equal(sealed[:pageMACBytes], p.seal(string(sealed[pageMACBytes:]), filter)) {
		return "", &badRequest{reason: "BAD_PAGE_TOKEN", violations: []violation{{
			"page_token", "is none that this daemon gave for this filter since it started; list again from the first page",
		}}}
	}
	return string(sealed[pageMACBytes:]), nil
}

func (p pager) seal(last, filter string) []byte {
	mac := hmac.New(sha256.New, p.key[:])
	fmt.Fprintf(mac, "%q %q", last, filter)
	return mac.Sum(nil)[:pageMACBytes]
}

func pageSize(asked int32) int { return atMost(asked, maxPageSize) }

func basicPageSize(asked int32) int { return atMost(asked, maxBasicPageSize) }

func atMost(asked int32, most int) int {
	if asked == 0 {
		return defaultPageSize
	}
	return min(int(asked), most)
}
