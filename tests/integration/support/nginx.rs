//! A real nginx as upstream.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use tempfile::TempDir;

use super::{Process, eventually, free_port, mortal};

/// A running nginx that serves files and a few fixed answers.
pub struct Nginx {
    process: Process,
    dir: TempDir,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Nginx {
    /// Serves `/1k`, `/1m`, `/hello`, `/headers` (echoes what it got), `/slow` (limited to 1 KiB/s); `name` is sent as `X-Origin`.
    pub async fn start(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sg-nginx-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (root, port) = (dir.path().display(), free_port());
        fs::create_dir(dir.path().join("www")).unwrap();
        fs::write(dir.path().join("www/1k"), vec![b'x'; 1 << 10]).unwrap();
        fs::write(dir.path().join("www/1m"), vec![b'x'; 1 << 20]).unwrap();
        fs::write(dir.path().join("www/slow"), vec![b'x'; 1 << 20]).unwrap();
        let conf = format!(
            r#"worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format connections $connections_active; access_log {root}/connections connections;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; keepalive_requests 1000000; client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} backlog=4096; root {root}/www; add_header X-Origin {name};
    location = /hello {{ return 200 "hello from {name}\n"; }}
    location = /headers {{ return 200 "host=$http_host|for=$http_x_forwarded_for|proto=$http_x_forwarded_proto|trace=$http_traceparent|connection=$http_connection|te=$http_transfer_encoding|cl=$http_content_length\n"; }}
    location = /slow {{ limit_rate 1k; }}
  }}
}}
"#
        );
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let mut command = mortal("/usr/sbin/nginx", None);
        command.arg("-e").arg(dir.path().join("error.log")).arg("-c").arg(dir.path().join("nginx.conf"));
        let process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx starts"));
        let connects = || async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
        eventually("nginx accepts", connects, |ready| *ready).await;
        Self { process, dir, port }
    }

    /// The most connections it had at a time, as it counted them itself at each request.
    pub fn peak(&self) -> usize {
        let seen = fs::read_to_string(self.dir.path().join("connections")).unwrap();
        seen.lines().filter_map(|line| line.parse().ok()).max().expect("nginx was asked for something")
    }

    /// `[upstream.web]`, and the route `/files` to it.
    pub fn files(&self) -> String {
        let url = self.url();
        format!(
            r#"
[upstream.web]
endpoints = ["{url}"]
[[route]]
path = "/files"
proxy = {{ upstream = "web", strip_prefix = true }}
"#
        )
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master passes it on to its worker.
        self.process.signal("TERM");
        let _ = self.process.0.wait();
    }
}
