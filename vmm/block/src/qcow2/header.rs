//! The header and its extensions (qcow2 specification, "Header" and "Header extensions").

use crate::disk::{DiskError, SECTOR_BYTES};
use crate::host_file::HostFile;
use crate::open::{Format, OpenError};
use crate::width::to_usize;

/// `QFI\xfb`, the first four bytes of every qcow2 image.
pub(crate) const MAGIC: u32 = 0x5146_49fb;

/// Length of a version 2 header, and of the part that both versions share.
const V2_BYTES: u64 = 72;
/// Length of the version 3 header before the compression type was added.
const V3_BYTES: u64 = 104;
/// QEMU's bound on the L1 table, 32 MiB, which every image that it makes keeps.
const MAX_L1_ENTRIES: u32 = (32 << 20) / 8;
/// QEMU's bound on the refcount table.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// The specification's bound on the backing file's name.
const MAX_BACKING_NAME_BYTES: u32 = 1023;
/// More header extensions than any writer makes.
const MAX_EXTENSIONS: usize = 64;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// Offset of `size`.
const SIZE_OFFSET: u64 = 24;
/// Offset of `l1_size`.
const L1_SIZE_OFFSET: u64 = 36;
/// Offset of the autoclear feature bits.
const AUTOCLEAR_OFFSET: u64 = 88;
/// Offset of `refcount_table_offset` and, right behind it, `refcount_table_clusters`.
const REFCOUNT_TABLE_OFFSET: u64 = 48;

const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION_TYPE: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = (1 << 5) - 1;

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Deflate without a header.
    Zlib,
    /// Zstandard frames.
    Zstd,
}

/// The backing file as the image names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    /// The file name.
    pub(crate) name: String,
    /// Its format, if the image records it.
    pub(crate) format: Option<Format>,
}

/// A header that was checked: sizes are bounded and tables lie inside the file.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) len_bytes: u64,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u64,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_bytes: u64,
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
    pub(super) incompatible: u64,
    pub(super) autoclear: u64,
    /// The file that lies below unallocated clusters.
    pub(crate) backing: Option<Backing>,
}

impl Header {
    /// Reads and checks the header of an image.
    pub(crate) fn read(file: &HostFile) -> Result<Self, OpenError> {
        let reader = Reader {
            file,
            file_bytes: file.len_bytes().map_err(|e| access(file, e))?,
        };
        let mut header = reader.fixed_part()?;
        reader.check_features(&header)?;
        reader.check_tables(&header)?;
        header.backing = reader.backing(&header)?;
        Ok(header)
    }

    /// Refuses to write to an image that was not closed well or that was found corrupt.
    pub(super) fn check_writable(&self, file: &HostFile) -> Result<(), OpenError> {
        let refuse = |problem: &str| {
            let path = file.path().to_owned();
            Err(OpenError::Header {
                path,
                field: "incompatible_features",
                problem: problem.into(),
            })
        };
        if self.incompatible & INCOMPATIBLE_CORRUPT != 0 {
            return refuse("marks the image corrupt, repair it with qemu-img check -r all");
        }
        if self.incompatible & INCOMPATIBLE_DIRTY != 0 {
            return refuse("marks the image dirty, repair it with qemu-img check -r all");
        }
        if self.refcount_table_bytes == 0 {
            let (path, problem) = (file.path().to_owned(), "is zero".into());
            return Err(OpenError::Header {
                path,
                field: "refcount_table_clusters",
                problem,
            });
        }
        Ok(())
    }

    /// Clears the autoclear bits, none of which stay true when this crate writes.
    pub(super) fn clear_autoclear(&self, file: &HostFile) -> Result<(), DiskError> {
        if self.autoclear == 0 {
            return Ok(());
        }
        file.write_all(AUTOCLEAR_OFFSET, &0u64.to_be_bytes())?;
        file.sync()
    }
}

/// Makes the header say another size of the disk and length of its L1 table. The table is complete
/// before, and a longer table than the size needs is no mistake.
pub(super) fn set_size(file: &HostFile, len_bytes: u64, l1_entries: u64) -> Result<(), DiskError> {
    let entries = u32::try_from(l1_entries).map_err(|_| DiskError::FixedSize)?;
    file.write_all(L1_SIZE_OFFSET, &entries.to_be_bytes())?;
    file.sync()?;
    file.write_all(SIZE_OFFSET, &len_bytes.to_be_bytes())?;
    file.sync()
}

/// Makes the header point to another refcount table, in one write that cannot tear.
pub(super) fn set_refcount_table(
    file: &HostFile,
    offset: u64,
    clusters: u32,
) -> Result<(), DiskError> {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[8..].copy_from_slice(&clusters.to_be_bytes());
    file.write_all(REFCOUNT_TABLE_OFFSET, &bytes)
}

fn access(file: &HostFile, source: DiskError) -> OpenError {
    OpenError::Access {
        path: file.path().to_owned(),
        source,
    }
}

struct Reader<'a> {
    file: &'a HostFile,
    file_bytes: u64,
}

impl Reader<'_> {
    fn bad(&self, field: &'static str, problem: impl Into<String>) -> OpenError {
        OpenError::Header {
            path: self.file.path().to_owned(),
            field,
            problem: problem.into(),
        }
    }

    fn unsupported(&self, feature: impl Into<String>) -> OpenError {
        OpenError::Unsupported {
            path: self.file.path().to_owned(),
            feature: feature.into(),
        }
    }

    fn bytes<const N: usize>(
        &self,
        field: &'static str,
        offset: u64,
    ) -> Result<[u8; N], OpenError> {
        let mut bytes = [0; N];
        let got = self
            .file
            .read_up_to(offset, &mut bytes)
            .map_err(|e| access(self.file, e))?;
        if got == N {
            Ok(bytes)
        } else {
            Err(self.bad(field, "lies beyond the end of the file"))
        }
    }

    fn u32(&self, field: &'static str, offset: u64) -> Result<u32, OpenError> {
        self.bytes(field, offset).map(u32::from_be_bytes)
    }

    fn u64(&self, field: &'static str, offset: u64) -> Result<u64, OpenError> {
        self.bytes(field, offset).map(u64::from_be_bytes)
    }

    fn fixed_part(&self) -> Result<Header, OpenError> {
        if self.u32("magic", 0)? != MAGIC {
            return Err(self.bad("magic", "is not that of a qcow2 image"));
        }
        let version = self.u32("version", 4)?;
        if version != 2 && version != 3 {
            return Err(self.bad("version", format!("is {version}, not 2 or 3")));
        }
        let cluster_bits = self.u32("cluster_bits", 20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(self.bad("cluster_bits", format!("is {cluster_bits}, not 9 to 21")));
        }
        if self.u32("crypt_method", 32)? != 0 {
            return Err(self.unsupported("encryption"));
        }
        let l1_entries = self.u32("l1_size", L1_SIZE_OFFSET)?;
        if l1_entries > MAX_L1_ENTRIES {
            return Err(self.bad(
                "l1_size",
                format!("is {l1_entries}, above {MAX_L1_ENTRIES}"),
            ));
        }
        let clusters = self.u32("refcount_table_clusters", 56)?;
        let mut header = Header {
            version,
            cluster_bits,
            len_bytes: self.u64("size", SIZE_OFFSET)? / SECTOR_BYTES * SECTOR_BYTES,
            l1_offset: self.u64("l1_table_offset", 40)?,
            l1_entries: u64::from(l1_entries),
            refcount_table_offset: self.u64("refcount_table_offset", 48)?,
            refcount_table_bytes: u64::from(clusters) << cluster_bits,
            refcount_order: 4,
            compression: Compression::Zlib,
            incompatible: 0,
            autoclear: 0,
            backing: None,
        };
        if version == 3 {
            self.version_3_part(&mut header)?;
        }
        Ok(header)
    }

    fn version_3_part(&self, header: &mut Header) -> Result<(), OpenError> {
        header.incompatible = self.u64("incompatible_features", 72)?;
        header.autoclear = self.u64("autoclear_features", AUTOCLEAR_OFFSET)?;
        header.refcount_order = self.u32("refcount_order", 96)?;
        if header.refcount_order > 6 {
            let problem = format!("is {}, above 6", header.refcount_order);
            return Err(self.bad("refcount_order", problem));
        }
        let length = self.header_length(header)?;
        let typed = header.incompatible & INCOMPATIBLE_COMPRESSION_TYPE != 0;
        if typed && length <= V3_BYTES {
            return Err(self.bad("header_length", "leaves no room for the compression type"));
        }
        if typed {
            header.compression = match self.bytes::<1>("compression_type", V3_BYTES)? {
                [0] => Compression::Zlib,
                [1] => Compression::Zstd,
                [other] => return Err(self.unsupported(format!("compression type {other}"))),
            };
        }
        Ok(())
    }

    fn header_length(&self, header: &Header) -> Result<u64, OpenError> {
        if header.version == 2 {
            return Ok(V2_BYTES);
        }
        let length = u64::from(self.u32("header_length", 100)?);
        if length < V3_BYTES || !length.is_multiple_of(8) || length > 1 << header.cluster_bits {
            return Err(self.bad("header_length", format!("is {length}")));
        }
        Ok(length)
    }

    fn check_features(&self, header: &Header) -> Result<(), OpenError> {
        if header.incompatible & INCOMPATIBLE_EXTERNAL_DATA != 0 {
            return Err(self.unsupported("an external data file"));
        }
        if header.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 {
            return Err(self.unsupported("the extended L2 entry format"));
        }
        let unknown = header.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            return Err(self.unsupported(format!("incompatible feature bit {bit}")));
        }
        Ok(())
    }

    fn check_tables(&self, header: &Header) -> Result<(), OpenError> {
        // Eight bytes per entry: an L2 table of one cluster maps that many clusters.
        let per_l1_entry = 1u64 << (2 * header.cluster_bits - 3);
        if i64::try_from(header.len_bytes).is_err() {
            return Err(self.bad("size", format!("is {}, beyond any file", header.len_bytes)));
        }
        if header.len_bytes.div_ceil(per_l1_entry) > header.l1_entries {
            let problem = format!("is {}, too small for the size", header.l1_entries);
            return Err(self.bad("l1_size", problem));
        }
        self.check_table(
            header,
            "l1_table_offset",
            header.l1_offset,
            header.l1_entries * 8,
        )?;
        let bytes = header.refcount_table_bytes;
        if bytes > MAX_REFCOUNT_TABLE_BYTES {
            let problem = format!("make a table of {bytes} bytes, above 8 MiB");
            return Err(self.bad("refcount_table_clusters", problem));
        }
        self.check_table(
            header,
            "refcount_table_offset",
            header.refcount_table_offset,
            bytes,
        )
    }

    fn check_table(
        &self,
        header: &Header,
        field: &'static str,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), OpenError> {
        if len_bytes == 0 {
            return Ok(());
        }
        if offset == 0 || !offset.is_multiple_of(1 << header.cluster_bits) {
            return Err(self.bad(field, format!("is {offset}, not the start of a cluster")));
        }
        match offset.checked_add(len_bytes) {
            Some(end) if end <= self.file_bytes => Ok(()),
            _ => {
                let end = self.file_bytes;
                Err(self.bad(
                    field,
                    format!(
                        "is {offset}: the table of {len_bytes} bytes there \
                    leaves the file of {end} bytes"
                    ),
                ))
            }
        }
    }

    fn backing(&self, header: &Header) -> Result<Option<Backing>, OpenError> {
        let offset = self.u64("backing_file_offset", 8)?;
        let len = self.u32("backing_file_size", 16)?;
        if offset == 0 || len == 0 {
            return Ok(None);
        }
        let inside = offset
            .checked_add(u64::from(len))
            .is_some_and(|e| e <= 1 << header.cluster_bits);
        if len > MAX_BACKING_NAME_BYTES || !inside {
            let problem = format!(
                "is {len} at offset {offset}: the name must be at most \
                {MAX_BACKING_NAME_BYTES} bytes long and lie in the first cluster"
            );
            return Err(self.bad("backing_file_size", problem));
        }
        let mut name = vec![0; to_usize(u64::from(len))];
        self.file
            .read_exact(offset, &mut name)
            .map_err(|e| access(self.file, e))?;
        let name = String::from_utf8(name)
            .map_err(|_| self.bad("backing file name", "is no UTF-8 text"))?;
        if name.contains('\0') {
            return Err(self.bad("backing file name", "contains a zero byte"));
        }
        Ok(Some(Backing {
            name,
            format: self.backing_format(header, offset)?,
        }))
    }

    /// Looks through the header extensions for the format of the backing file.
    fn backing_format(&self, header: &Header, end: u64) -> Result<Option<Format>, OpenError> {
        let mut at = self.header_length(header)?;
        for _ in 0..MAX_EXTENSIONS {
            if at + 8 > end {
                return Ok(None);
            }
            let kind = self.u32("header extension", at)?;
            let len = u64::from(self.u32("header extension", at + 4)?);
            if kind == EXTENSION_END {
                return Ok(None);
            }
            if len > end - at - 8 {
                return Err(self.bad("header extension", format!("at {at} is {len} bytes long")));
            }
            if kind == EXTENSION_BACKING_FORMAT {
                return self.format_name(at + 8, len).map(Some);
            }
            at += 8 + len.next_multiple_of(8);
        }
        Err(self.bad(
            "header extensions",
            format!("are more than {MAX_EXTENSIONS}"),
        ))
    }

    fn format_name(&self, offset: u64, len_bytes: u64) -> Result<Format, OpenError> {
        let mut name = vec![0; to_usize(len_bytes.min(16))];
        self.file
            .read_exact(offset, &mut name)
            .map_err(|e| access(self.file, e))?;
        match name.as_slice() {
            b"raw" | b"file" | b"host_device" => Ok(Format::Raw),
            b"qcow2" => Ok(Format::Qcow2),
            _ => {
                let name = String::from_utf8_lossy(&name).into_owned();
                Err(self.unsupported(format!("the backing file format {name:?}")))
            }
        }
    }
}
