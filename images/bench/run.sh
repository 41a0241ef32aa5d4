# Runs the workload that the command line's `bench=` names between two marker lines, then powers off.
# The text after the marker's name is the amount of work: bytes, instructions, seconds or operations.
busybox() { /bin/busybox "$@"; }
begin() { echo "FERROVIRT-BEGIN $1"; }
end() { echo "FERROVIRT-END $1 $2"; }
zeros() { busybox dd if=/dev/zero bs=64k count=1024 2>/dev/null; }
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null

case $bench in
    sha256) begin sha256; zeros | busybox sha256sum >/dev/null; end sha256 67108864 ;;
    gzip) begin gzip; zeros | busybox gzip -c >/dev/null; end gzip 67108864 ;;
    intloop) begin intloop; /init intloop; end intloop 1000000000 ;;
    idle) begin idle; busybox sleep "${seconds:-10}"; end idle "${seconds:-10}" ;;
    blkread)
        busybox modprobe -a virtio_pci virtio_blk
        tries=0
        until [ -b /dev/vda ] || [ $tries -gt 50 ]; do busybox usleep 100000; tries=$((tries + 1)); done
        size=$(busybox cat /sys/block/vda/size)
        begin seqread; busybox dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null; end seqread $((size * 512))
        begin randread; /init randread /dev/vda || echo "FERROVIRT-ERROR randread"; end randread 8192
        ;;
    nested) # a host of KVM guests: the test brings the modules (/kvm) and what to run on them (/nested)
        for module in $(busybox cat /kvm/order); do busybox insmod "/kvm/$module"; done
        busybox sh /nested/run.sh
        ;;
    *) echo "FERROVIRT-ERROR unknown workload $bench" ;;
esac
busybox poweroff -f
