//! Two requests to the kernel for which no safe wrapper exists.
#![expect(unsafe_code, reason = "each of the two calls states why it is sound")]

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl};

/// `struct ifreq`: a name, then a union of which only the flags are used.
const IFREQ_BYTES: usize = 40;
const NAME_BYTES: usize = 16;
/// Layer 3, no extra header.
const IFF_TUN_NO_PI: u16 = 0x1001;
const TUNSETIFF: u32 = 0x4004_54ca;
const FS_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// Drops all that is not on disk, the journal's memory included.
const NO_LOG_FLUSH: u32 = 2;

/// Makes a network interface whose packets are read from and written to the file. It lives as long
/// as the file is open.
pub(crate) fn tun(name: &str) -> io::Result<File> {
    if name.len() >= NAME_BYTES {
        return Err(io::Error::other(format!("{name} is too long for an interface")));
    }
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0_u8; IFREQ_BYTES];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[NAME_BYTES..NAME_BYTES + 2].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which has this size on 64-bit Linux and
    // may hold any bytes; the array is owned by the request for as long as the call takes.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, _>::new(request)) }?;
    Ok(file)
}

/// Cuts the power of a mounted file system: what is not synced is lost, nothing works until it is
/// mounted anew.
pub(crate) fn shut_down(mount: &Path) -> io::Result<()> {
    let folder = File::open(mount)?;
    // SAFETY: FS_IOC_SHUTDOWN reads one 32-bit number through its argument.
    unsafe { ioctl(&folder, Setter::<FS_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?;
    Ok(())
}
