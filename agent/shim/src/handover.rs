//! Descriptors on their way from an agent to the shim that adopts a workload.
//!
//! They lie in a socket pair before the shim exists, and the shim gets one end as its
//! standard input: nothing has to be inherited by number, nobody waits for anybody, and an
//! agent that dies in the middle has handed over all the same.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Packs the terminal's master, and the memory of the shim that died if there is one, into
/// a socket for the new shim's standard input.
pub fn pack(master: BorrowedFd<'_>, flight: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(master).chain(flight).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&ours, &[IoSlice::new(WORD)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(theirs)
}

/// Takes them out again: master and memory.
pub fn unpack(socket: impl AsFd) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0_u8; WORD.len()];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(&socket, &mut [IoSliceMut::new(&mut word)], &mut ancillary, flags)?;
    let mut descriptors = ancillary.drain().flat_map(|item| match item {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let (master, flight) = (descriptors.next(), descriptors.next());
    match master {
        Some(master) if received.bytes == WORD.len() && word == *WORD => Ok((master, flight)),
        _ => Err(io::Error::other("nothing was handed over")),
    }
}

/// A message cannot be empty.
const WORD: &[u8; 5] = b"adopt";

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_packed_outlives_the_packer() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (other, _) = std::io::pipe().unwrap();
        let socket = pack(writer.as_fd(), Some(other.as_fd())).unwrap();
        drop(writer);
        let (master, flight) = unpack(&socket).unwrap();
        assert!(flight.is_some());
        std::fs::File::from(master).write_all(b"x").unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x");
        assert!(unpack(&socket).is_err(), "it is empty now");
    }

    #[test]
    fn whatever_else_standard_input_is_nothing_is_taken() {
        assert!(unpack(std::fs::File::open("/dev/null").unwrap()).is_err());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        assert!(unpack(&theirs).is_err(), "nothing there yet is not waited for");
        rustix::net::send(&ours, b"hello", SendFlags::NOSIGNAL).unwrap();
        assert!(unpack(&theirs).is_err());
    }
}
