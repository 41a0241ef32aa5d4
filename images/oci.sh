#!/usr/bin/env bash
# Packs a directory as a one-layer OCI image layout (image-spec 1.1, image-layout.md), with the image's name in the
# annotation by which virt-launcher's image folder resolves it.
# Usage: oci.sh DIRECTORY UID REFERENCE LAYOUT
set -euo pipefail
source_dir=$1 uid=$2 reference=$3 layout=$4

mkdir -p "$layout/blobs/sha256"

# Moves a file among the blobs and sets $digest and $size.
add_blob() {
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$layout/blobs/sha256/$digest"
}

# Uncompressed: a kernel and a qcow2 of compressed packages gain little, and unpacking costs nothing.
tar -C "$source_dir" --sort=name --mtime=@0 --owner="$uid" --group="$uid" --numeric-owner --mode=a+rX \
    -cf "$layout/layer.tar" .
add_blob "$layout/layer.tar"
layer=$digest layer_size=$size

printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" >"$layout/config.json"
add_blob "$layout/config.json"
config=$digest config_size=$size

printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
    "$config" "$config_size" "$layer" "$layer_size" >"$layout/manifest.json"
add_blob "$layout/manifest.json"

printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
    "$digest" "$size" "$reference" >"$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
