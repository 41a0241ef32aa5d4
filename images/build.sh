#!/usr/bin/env bash
# Builds the guests that demo, tests and benchmarks run, from Debian packages, into target/guests (see images/README.md).
# Works as root or not, needs no loop device and no mount, and does nothing when its inputs have not changed.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${FERROVIRT_GUESTS:-$here/../target/guests}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/.work
registry=registry.example/ferrovirt

say() { printf 'images: %s\n' "$*"; }
die() { printf 'images: %s\n' "$*" >&2; exit 1; }
trap 'die "build.sh line $LINENO failed"' ERR

# --- nothing to do? -------------------------------------------------------------------------------------------------

outputs="vmlinuz initrd agent-initrd bench-initrd kvm-modules.cpio root.qcow2 root.raw kernel-release
    node-vmlinuz node-initrd oci/demo-disk/index.json oci/demo-kernel/index.json"

inputs_digest() {
    (cd "$here" && find build.sh oci.sh guest agent bench node -type f | LC_ALL=C sort | xargs sha256sum
        command -v qemu-img >/dev/null && echo with-qemu-img || echo without-qemu-img) | sha256sum | cut -d' ' -f1
}

up_to_date() {
    [ "${FERROVIRT_REFRESH:-}" != 1 ] && [ "$(cat "$out/.stamp" 2>/dev/null)" = "$digest" ] || return 1
    for file in $outputs; do [ -e "$out/$file" ] || return 1; done
}

exec 9>"$out/.lock"
flock 9   # two test runs may start at the same time
digest=$(inputs_digest)
if up_to_date; then
    say "up to date: $out (Debian kernel $(cat "$out/kernel-release"))"
    exit 0
fi

# --- tools ----------------------------------------------------------------------------------------------------------

[ "$(uname -m)" = x86_64 ] || die "the guests are x86-64 and their tools run here: this machine is $(uname -m)"
for tool in apt-get apt-cache dpkg-deb; do
    command -v $tool >/dev/null || die "$tool not found: guests are built from Debian packages, so run this on Debian"
done
PATH=$PATH:/usr/sbin:/sbin

missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need mke2fs e2fsprogs
need debugfs e2fsprogs
need cc gcc
if [ "$(id -u)" = 0 ]; then command -v qemu-img >/dev/null || missing="$missing qemu-utils"; fi
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
if [ -n "${missing// /}" ]; then
    if [ "$(id -u)" = 0 ]; then
        say "installing $missing"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        die "missing tools; have an administrator run: apt-get install $missing"
    fi
fi

# --- packages -------------------------------------------------------------------------------------------------------

# The system's package lists may be absent or stale, and refreshing them needs root: private ones need nothing.
apt_options=()
private_lists() {
    mkdir -p "$out/.apt/lists/partial" "$out/.apt/cache/archives/partial"
    apt_options=(-o "Dir::State::lists=$out/.apt/lists" -o "Dir::Cache=$out/.apt/cache" -o APT::Sandbox::User=
        -o Acquire::Languages=none)
    say "reading package lists"
    apt-get "${apt_options[@]}" update -qq || die "apt-get update failed: are the Debian mirrors reachable?"
}

kernel_package() { # name of the package that depends on the newest
    apt-cache "${apt_options[@]}" depends "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n1
}
kernel_packages() {
    kernel=$(kernel_package linux-image-cloud-amd64) && node_kernel=$(kernel_package linux-image-amd64) &&
        [ -n "$kernel" ] && [ -n "$node_kernel" ]
}

# util-linux gives lsblk, which busybox lacks; the libraries are the closure of what it links to.
lsblk_packages="util-linux libc6 libblkid1 libmount1 libsmartcols1 libudev1 libselinux1 libpcre2-8-0 libcap2"

# The guest agent and the libraries that it links to itself; theirs are among those of lsblk.
agent_packages() {
    echo qemu-guest-agent
    apt-cache "${apt_options[@]}" depends qemu-guest-agent 2>/dev/null |
        sed -n 's/^ *Depends: \(lib[^ <]*\)$/\1/p' | grep -vxE "${lsblk_packages// /|}"
}

# Downloads each package into $work/debs and unpacks it below $work/pkg/<package>.
fetch() {
    (cd "$work/debs" && apt-get "${apt_options[@]}" -o APT::Sandbox::User= download -qq "$@") || return 1
    for package in "$@"; do
        say "unpacking $package"
        dpkg-deb -x "$work"/debs/"$package"_*.deb "$work/pkg/$package"
    done
}

rm -rf "$work"
mkdir -p "$work/debs" "$work/pkg"
kernel_packages || { private_lists; kernel_packages; } ||
    die "linux-image-cloud-amd64 or linux-image-amd64 is in no apt source: add a Debian main repository"
say "downloading $kernel, $node_kernel, busybox-static and the packages of lsblk and the guest agent"
fetch_all() { fetch "$kernel" "$node_kernel" busybox-static $lsblk_packages $(agent_packages); }
if ! fetch_all 2>"$work/apt.log"; then
    [ ${#apt_options[@]} = 0 ] || die "download failed: $(tail -n1 "$work/apt.log")"
    rm -f "$work"/debs/*
    private_lists
    kernel_packages && fetch_all || die "download failed"
fi

pkg=$work/pkg
release_of() { local release=${1#linux-image-}; echo "${release%-unsigned}"; }
modules_of() { find "$pkg/$1" -type d -path "*lib/modules/$(release_of "$1")"; }
release=$(release_of "$kernel")
busybox=$(find "$pkg/busybox-static" -path '*bin/busybox' -type f)
modules=$(modules_of "$kernel")
[ -n "$modules" ] || die "$kernel holds no modules for $release"

# --- kernel and modules ---------------------------------------------------------------------------------------------

cp "$pkg/$kernel/boot/vmlinuz-$release" "$work/vmlinuz"

# What the guests can need; built-in ones are absent from the package and skipped. The closure follows `depends=`.
wanted="virtio_pci virtio_blk virtio_console virtio_scsi virtio_net virtio-rng virtio_balloon virtio_input
    vmw_vsock_virtio_transport ext4 isofs nls_utf8 nls_iso8859-1 sd_mod sr_mod button evdev qemu_fw_cfg crc32c-intel"

module_file() {
    find "$modules" \( -name "${1//[-_]/[-_]}.ko" -o -name "${1//[-_]/[-_]}.ko.xz" \) | head -n1
}

# Copies a module and what it depends on; names them in $load_order, dependencies first.
declare -A taken=()
load_order=
take_module() { # name destination
    local file name=${1//-/_} plain
    [ -z "${taken[$name]:-}" ] || return 0
    taken[$name]=1
    file=$(module_file "$1")
    [ -n "$file" ] || return 0
    plain=$2/$(basename "${file%.xz}")
    case $file in
        *.xz) "$busybox" unxz -c "$file" >"$plain" ;;
        *) cp "$file" "$plain" ;;
    esac
    local dependency
    for dependency in $(tr '\0' '\n' <"$plain" | sed -n 's/^depends=//p' | tr ',' ' '); do
        take_module "$dependency" "$2"
    done
    load_order="$load_order $(basename "$plain")"
}

mkdir -p "$work/modules/lib/modules/$release"
for module in $wanted; do take_module "$module" "$work/modules/lib/modules/$release"; done
"$busybox" depmod -b "$work/modules" "$release"
say "kernel $release with $(find "$work/modules" -name '*.ko' | wc -l) modules"

# What a test adds to bench-initrd for a guest that is itself a host of KVM guests.
taken=() load_order=
mkdir -p "$work/kvm/kvm"
take_module kvm-amd "$work/kvm/kvm"
printf '%s\n' $load_order >"$work/kvm/kvm/order"

# A worker node with devices to be given away: the generic kernel, since the cloud one has no USB.
node_wanted="xhci_pci usb_storage ftdi_sio usbhid hid_generic sd_mod nvme vfio_pci vfio_iommu_type1 vhost_net vhost_vsock
    tun kvm_amd pci_stub"
node_release=$(release_of "$node_kernel")
modules=$(modules_of "$node_kernel")
[ -n "$modules" ] || die "$node_kernel holds no modules for $node_release"
cp "$pkg/$node_kernel/boot/vmlinuz-$node_release" "$work/node-vmlinuz"
taken=()
mkdir -p "$work/node/lib/modules/$node_release"
for module in $node_wanted; do take_module "$module" "$work/node/lib/modules/$node_release"; done
"$busybox" depmod -b "$work/node" "$node_release"
say "kernel $node_release with $(find "$work/node" -name '*.ko' | wc -l) modules"

# --- file trees -----------------------------------------------------------------------------------------------------

# The busybox user land with our init scripts, the same in the initramfs and on the root disk.
plant() { # tree
    mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,etc/acpi/PWRF,proc,sys,dev,run,tmp,mnt/cidata,newroot,root,var/log}
    cp "$busybox" "$1/bin/busybox"
    chmod 755 "$1/bin/busybox"
    local applet
    for applet in $("$busybox" --list-full); do
        [ -e "$1/$applet" ] || { mkdir -p "$1/$(dirname "$applet")"; ln -s /bin/busybox "$1/$applet"; }
    done
    cp -R "$here/guest/etc/." "$1/etc/"
    mkdir -p "$1/usr/lib/ferrovirt"
    cp "$here"/guest/bin/* "$1/usr/lib/ferrovirt/"
    find "$1" -type d -exec chmod 755 {} +
    chmod 755 "$1"/usr/lib/ferrovirt/* "$1/etc/init.d/rcS" "$1"/etc/acpi/PWRF/*
    chmod 600 "$1/etc/shadow"
    chmod 1777 "$1/tmp"
}

# Uncompressed on purpose: the host copies bytes for nothing, the guest would inflate them on a software CPU
# (inflating these few MiB costs more instructions than the whole unpacking).
archive() { # tree file
    (cd "$1" && find . -print | LC_ALL=C sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$2"
}

# Copies a program of Debian's and the libraries that it links to.
loader=$(find "$pkg/libc6" -name 'ld-linux-x86-64.so.2' | head -n1)
libraries=$(find "$pkg" -type d -name x86_64-linux-gnu -path '*lib/x86_64-linux-gnu' | tr '\n' ':')
take_linked() { # program tree folder
    mkdir -p "$2/$3" "$2/lib64" "$2/lib/x86_64-linux-gnu"
    rm -f "$2/$3/$(basename "$1")"
    cp "$1" "$2/$3/"
    cp -L "$loader" "$2/lib64/ld-linux-x86-64.so.2"
    "$loader" --library-path "$libraries" --list "$1" | sed -n 's/.*=> \([^ ]*\) .*/\1/p' | while read -r library; do
        cp -L "$library" "$2/lib/x86_64-linux-gnu/$(basename "$library")"
    done
}

say "packing initrd"
plant "$work/initramfs"
cp -R "$work/modules/lib" "$work/initramfs/"
cp "$here/guest/init" "$work/initramfs/init"
chmod 755 "$work/initramfs/init"
archive "$work/initramfs" "$work/initrd"

# The same with the guest agent: the kernel unpacks one archive after the other.
say "packing agent-initrd"
agent=$work/agent
mkdir -p "$agent"/{etc,sbin,usr/lib/ferrovirt}
take_linked "$(find "$pkg/qemu-guest-agent" -path '*bin/qemu-ga')" "$agent" usr/sbin
cp "$here/agent/guest-agent" "$agent/usr/lib/ferrovirt/guest-agent"
cp "$here/agent/shutdown" "$agent/sbin/shutdown"
{ cat "$here/guest/etc/inittab"; echo '::respawn:/usr/lib/ferrovirt/guest-agent'; } >"$agent/etc/inittab"
find "$agent" -type d -exec chmod 755 {} +
chmod 755 "$agent/usr/lib/ferrovirt/guest-agent" "$agent/sbin/shutdown"
archive "$agent" "$work/agent.cpio"
cat "$work/initrd" "$work/agent.cpio" >"$work/agent-initrd"

say "packing bench-initrd"
bench=$work/bench
mkdir -p "$bench"/{bin,proc,sys,dev,lib/modules}
cp "$busybox" "$bench/bin/busybox"
cp "$here/bench/run.sh" "$bench/run.sh"
cp -R "$work/modules/lib" "$bench/"
chmod 755 "$bench/bin/busybox" "$bench/run.sh"
cc -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie -fno-tree-loop-distribute-patterns \
    -fcf-protection=none -nostdlib -static -no-pie -Wl,--build-id=none -s -o "$bench/init" "$here/bench/init.c"
archive "$bench" "$work/bench-initrd"
archive "$work/kvm" "$work/kvm-modules.cpio"

say "packing node-initrd"
node=$work/node
mkdir -p "$node"/{bin,proc,sys,dev,run,tmp,sbin}
cp "$busybox" "$node/bin/busybox"
ln -s /bin/busybox "$node/sbin/modprobe"   # which the kernel calls
cp "$here/node/init" "$node/init"
echo $node_wanted >"$node/modules"
chmod 755 "$node/bin/busybox" "$node/init"
archive "$node" "$work/node-initrd"

say "filling the root disk"
root=$work/root
plant "$root"
cp "$here/guest/motd" "$root/etc/motd"
take_linked "$(find "$pkg/util-linux" -path '*bin/lsblk')" "$root" usr/bin
rm -f "$work/root.raw"
truncate -s 64M "$work/root.raw"
mke2fs -q -F -t ext4 -L ferrovirt-root -U f3220000-0000-4000-8000-000000000001 \
    -E root_owner=0:0,hash_seed=f3220000-0000-4000-8000-000000000002,lazy_itable_init=0,lazy_journal_init=0 \
    -d "$root" "$work/root.raw"
if [ "$(id -u)" != 0 ]; then
    # mke2fs copied our own uid; the guest expects root's.
    (cd "$root" && find . -mindepth 1 | sed 's|^\./||' | while read -r path; do
        printf 'sif "/%s" uid 0\nsif "/%s" gid 0\n' "$path" "$path"
    done) | debugfs -w -f - "$work/root.raw" >/dev/null 2>&1
fi
if command -v qemu-img >/dev/null; then
    qemu-img convert -f raw -O qcow2 "$work/root.raw" "$work/root.qcow2"
    disk_name=root.qcow2
else
    say "note: qemu-img not found, so root.qcow2 is the raw image under that name (install qemu-utils for a qcow2)"
    cp --sparse=always "$work/root.raw" "$work/root.qcow2"
    disk_name=root.img
fi

# --- OCI layouts ----------------------------------------------------------------------------------------------------

say "packing OCI layouts"
mkdir -p "$work/layer-disk/disk" "$work/layer-kernel/boot"
cp "$work/root.qcow2" "$work/layer-disk/disk/$disk_name"
cp "$work/vmlinuz" "$work/initrd" "$work/layer-kernel/boot/"
bash "$here/oci.sh" "$work/layer-disk" 107 "$registry/demo-disk:latest" "$work/oci/demo-disk"
bash "$here/oci.sh" "$work/layer-kernel" 107 "$registry/demo-kernel:latest" "$work/oci/demo-kernel"

# --- publish --------------------------------------------------------------------------------------------------------

printf '%s\n' "$release" >"$work/kernel-release"
rm -f "$out/.stamp"
rm -rf "$out/oci" "$out/modules"
mv "$work/modules/lib/modules" "$out/modules"
mv "$work/oci" "$out/oci"
for file in vmlinuz initrd agent-initrd bench-initrd kvm-modules.cpio root.raw root.qcow2 kernel-release node-vmlinuz \
    node-initrd; do
    mv -f "$work/$file" "$out/$file"
done
cp "$busybox" "$out/busybox"       # the native peer of the in-guest benchmarks
cp "$bench/init" "$out/bench-init"
rm -rf "$work"
printf '%s\n' "$digest" >"$out/.stamp"
say "done: $out"
