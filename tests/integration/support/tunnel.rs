//! Clients of the tunnel: a WebSocket over TLS, raw or as the byte stream of a PostgreSQL client.

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split},
    net::TcpStream,
    time::timeout,
};
use tokio_postgres::{Connection, NoTls, tls::NoTlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use super::{PATIENCE, client::tls_stream, gateway::Gateway};

/// A WebSocket.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Whatever it goes over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens one at `path`; the error of a refusal holds its status.
pub async fn open(gateway: &Gateway, path: &str) -> Result<Socket> {
    open_from(gateway, path, None).await
}

/// The same from a page of `origin`.
pub async fn open_from(gateway: &Gateway, path: &str, origin: Option<&str>) -> Result<Socket> {
    let stream = tls_stream(gateway.address("public"), &gateway.ca(), "localhost", b"http/1.1").await?;
    let stream: Box<dyn Stream> = Box::new(stream);
    let mut request = format!("wss://localhost:{}{path}", gateway.address("public").port()).into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse()?);
    }
    let (socket, _) = timeout(PATIENCE, client_async(request, stream)).await.context("no upgrade")??;
    Ok(socket)
}

/// A PostgreSQL client's session through the tunnel.
pub async fn session(
    gateway: &Gateway,
    key: &str,
) -> Result<(tokio_postgres::Client, Connection<DuplexStream, NoTlsStream>)> {
    session_of(gateway, &login("app", key)).await
}

/// What a PostgreSQL client is told to come with.
pub fn login(user: &str, key: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.user(user).password(key).dbname("postgres");
    config
}

/// The same, as `config` says.
pub async fn session_of(
    gateway: &Gateway,
    config: &tokio_postgres::Config,
) -> Result<(tokio_postgres::Client, Connection<DuplexStream, NoTlsStream>)> {
    let stream = joined(open(gateway, "/v2").await?);
    Ok(timeout(PATIENCE, config.connect_raw(stream, NoTls)).await.context("no session")??)
}

/// The same, with its connection driven.
pub async fn client(gateway: &Gateway, key: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = session(gateway, key).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A WebSocket as a stream of bytes.
pub fn joined(socket: Socket) -> DuplexStream {
    let (near, far) = duplex(64 << 10);
    let (mut sink, mut stream) = socket.split();
    let (mut reader, mut writer) = split(far);
    tokio::spawn(async move {
        let mut piece = vec![0; 16 << 10];
        while let Ok(read @ 1..) = reader.read(&mut piece).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&piece[..read]))).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if message.is_binary() && writer.write_all(&message.into_data()).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    near
}

// --- raw ---

/// A start-up packet.
pub fn start_up(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in pairs {
        body.extend(format!("{name}\0{value}\0").into_bytes());
    }
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// A message of this type.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

/// Parses `sql` as the statement `name`; the empty name is the unnamed one.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Binds the statement `name` to the unnamed portal, without parameters.
pub fn bind(name: &str) -> Vec<u8> {
    message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

/// Executes the unnamed portal to its end.
pub fn execute() -> Vec<u8> {
    message(b'E', &[0; 5])
}

/// Ends an extended query.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// Says goodbye.
pub fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// A raw speaker: bytes in frames, messages out of them.
pub struct Raw {
    pub socket: Socket,
    said: BytesMut,
    /// The close code, once it has come.
    pub closed: Option<u16>,
}

impl Raw {
    /// Opens a tunnel and says nothing.
    pub async fn open(gateway: &Gateway) -> Self {
        Self { socket: open(gateway, "/v2").await.unwrap(), said: BytesMut::new(), closed: None }
    }

    /// Opens one on the listener `plain`.
    pub async fn open_plain(gateway: &Gateway) -> Self {
        let stream: Box<dyn Stream> = Box::new(TcpStream::connect(gateway.address("plain")).await.unwrap());
        let url = format!("ws://{}/v2", gateway.address("plain"));
        let (socket, _) = timeout(PATIENCE, client_async(url, stream)).await.unwrap().unwrap();
        Self { socket, said: BytesMut::new(), closed: None }
    }

    /// Opens one and sends start-up, password and a query at once, as the driver does.
    pub async fn pipelined(gateway: &Gateway, key: &str, sql: &str) -> Self {
        Self::open(gateway).await.begin(key, sql).await
    }

    /// Sends start-up, password and a query at once.
    pub async fn begin(mut self, key: &str, sql: &str) -> Self {
        self.enter("app", key).await;
        self.say(&query(sql)).await;
        self
    }

    /// Sends start-up and password.
    pub async fn enter(&mut self, user: &str, key: &str) {
        self.say(&start_up(&[("user", user), ("database", "postgres")])).await;
        self.say(&message(b'p', format!("{key}\0").as_bytes())).await;
    }

    /// Hears the session's beginning and the answer to the query that came with it.
    pub async fn answered(mut self) -> Self {
        self.begun().await;
        self.until(b'Z').await;
        self
    }

    /// Says bytes, in one frame.
    pub async fn say(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    /// The next message of the server: its type and body; none once it has closed.
    pub async fn hear(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((header, _)) = self.said.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if self.said.len() > length {
                    let message = self.said.split_to(length + 1);
                    return Ok(Some((message[0], message[5..].to_vec())));
                }
            }
            match timeout(PATIENCE, self.socket.next()).await.context("nothing is said")? {
                Some(Ok(Message::Binary(bytes))) => self.said.put_slice(&bytes),
                Some(Ok(Message::Close(frame))) => {
                    self.closed = frame.map(|frame| match frame.code {
                        CloseCode::Normal => 1000,
                        other => other.into(),
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None if self.said.is_empty() => return Ok(None),
                Some(Err(error)) => bail!("half a message, then {error}"),
                None => bail!("half a message"),
            }
        }
    }

    /// The types of all messages up to one of type `last`, which is among them.
    pub async fn until(&mut self, last: u8) -> String {
        let mut seen = String::new();
        while let Some((tag, _)) = self.hear().await.unwrap() {
            seen.push(char::from(tag));
            if tag == last {
                return seen;
            }
        }
        panic!("it closed with {:?} behind {seen}", self.closed);
    }

    /// Hears the session's beginning.
    pub async fn begun(&mut self) -> String {
        self.until(b'Z').await
    }

    /// The SQLSTATE of the next error, past what comes before.
    pub async fn error(&mut self) -> String {
        while let Some((tag, body)) = self.hear().await.unwrap() {
            if tag == b'E' {
                let mut fields = body.split(|byte| *byte == 0);
                let code = fields.find_map(|field| field.strip_prefix(b"C")).unwrap_or_default();
                return String::from_utf8_lossy(code).into_owned();
            }
        }
        panic!("it closed with {:?} and no error", self.closed);
    }

    /// Hears everything up to the close; its code.
    pub async fn end(&mut self) -> Option<u16> {
        while self.hear().await.unwrap().is_some() {}
        self.closed
    }
}
