// Command protodeps writes the .proto files that ours import (google/api, buf/validate, ...) into a folder, so that buf
// can compile without a schema registry. They are printed from the descriptors that the Go modules in go.mod carry: the
// versions are those of the run time, pinned by go.sum, and nothing of third parties is committed.
//
//	go run ./tools/protodeps -o .protodeps google/api/annotations.proto buf/validate/validate.proto
package main

import (
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3/options"
	_ "google.golang.org/genproto/googleapis/api/annotations"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", ".protodeps", "folder to write to; emptied first")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		log.Fatal("protodeps: ", err)
	}
}

func run(out string, roots []string) error {
	files := map[string]protoreflect.FileDescriptor{}
	for _, root := range roots {
		fd, err := protoregistry.GlobalFiles.FindFileByPath(root)
		if err != nil {
			return fmt.Errorf("cannot find %s among the linked descriptors (import its Go package): %w", root, err)
		}
		collect(fd, files)
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return (&protoprint.Printer{}).PrintProtosToFileSystem(slices.Collect(maps.Values(files)), out)
}

// collect adds fd and all that it imports; google/protobuf/* is left out, since buf carries those itself.
func collect(fd protoreflect.FileDescriptor, files map[string]protoreflect.FileDescriptor) {
	if strings.HasPrefix(fd.Path(), "google/protobuf/") || files[fd.Path()] != nil {
		return
	}
	files[fd.Path()] = fd
	for i := range fd.Imports().Len() {
		collect(fd.Imports().Get(i).FileDescriptor, files)
	}
}
