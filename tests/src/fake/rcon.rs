//! RCON as Minecraft speaks it: answers in packets of 4,096 bytes, an unknown kind of request is
//! answered in order.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::events::{Events, What};
use super::ping::PingState;

/// Bytes of text in one packet.
const PIECE: usize = 4096;

/// Listens, from now on.
pub(crate) fn listen(port: u16, password: String, state: PingState, events: Events) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    std::thread::Builder::new().name("RCON".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // One that breaks off is no matter.
            let _ = talk(stream, &password, &state, &events);
        }
    })?;
    Ok(())
}

fn talk(mut stream: TcpStream, password: &str, state: &PingState, events: &Events) -> io::Result<()> {
    let mut known = false;
    loop {
        let (id, kind, text) = read(&mut stream)?;
        match kind {
            3 => {
                known = text == password;
                write(&mut stream, if known { id } else { -1 }, 2, "")?;
            }
            2 if known => {
                events.record(What::Command, format!("rcon {text}"));
                let answer = answer(&text, state);
                if answer.is_empty() {
                    write(&mut stream, id, 0, "")?;
                }
                for piece in answer.as_bytes().chunks(PIECE) {
                    write(&mut stream, id, 0, &String::from_utf8_lossy(piece))?;
                }
            }
            2 => write(&mut stream, -1, 2, "")?,
            other => write(&mut stream, id, 0, &format!("Unknown request {other:x}"))?,
        }
    }
}

fn answer(command: &str, state: &PingState) -> String {
    match command {
        "list" => {
            let (players, max) = state.players();
            format!(
                "There are \u{a7}a{}\u{a7}r of a max of {max} players online: {}",
                players.len(),
                players.join(", ")
            )
        }
        "help" => (1..=400).map(|number| format!("/command{number} <arguments of it>\n")).collect(),
        other => format!("Unknown or incomplete command, see below for error\n{other}<--[HERE]"),
    }
}

fn read(stream: &mut TcpStream) -> io::Result<(i32, i32, String)> {
    let mut number = || -> io::Result<i32> {
        let mut four = [0; 4];
        stream.read_exact(&mut four)?;
        Ok(i32::from_le_bytes(four))
    };
    let (length, id, kind) = (number()?, number()?, number()?);
    let length = usize::try_from(length).ok().filter(|length| (10..=1460).contains(length));
    let mut text = vec![0; length.ok_or(io::ErrorKind::InvalidData)? - 8];
    stream.read_exact(&mut text)?;
    text.truncate(text.len() - 2);
    Ok((id, kind, String::from_utf8_lossy(&text).into_owned()))
}

fn write(stream: &mut TcpStream, id: i32, kind: i32, text: &str) -> io::Result<()> {
    let length = i32::try_from(text.len() + 10).map_err(io::Error::other)?;
    let mut packet = Vec::new();
    for number in [length, id, kind] {
        packet.extend_from_slice(&number.to_le_bytes());
    }
    packet.extend_from_slice(text.as_bytes());
    packet.extend_from_slice(&[0, 0]);
    stream.write_all(&packet)
}
