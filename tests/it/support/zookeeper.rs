//! A genuine ZooKeeper ensemble on loopback ports of its own, each node of which can be killed and started again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::port::Port;
use super::scratch::Scratch;
use super::server::Server;
use super::tool::tool;
use super::wait::{GENEROUS, wait_until_blocking};

/// A running ensemble. Its data survives `kill` and `start`.
#[derive(Debug)]
pub(crate) struct ZooKeeper {
    // Before the folder: servers end first.
    nodes: Vec<(Server, Port)>,
    _ports: Vec<Port>,
    _folder: Scratch,
}

impl ZooKeeper {
    /// Starts one of `count` nodes and waits until it serves; none when there is no ZooKeeper (see [`tool`]).
    pub(crate) fn start_new(count: usize) -> Option<Self> {
        let program = tool("zookeeper")?;
        let folder = Scratch::new();
        let clients: Vec<_> = (0..count).map(|_| Port::new()).collect();
        let ports: Vec<_> = (0..count * 2).map(|_| Port::new()).collect();
        let mut members = String::new();
        for (index, pair) in ports.chunks(2).enumerate().filter(|_| count > 1) {
            members += &format!("server.{index}=127.0.0.1:{}:{}\n", pair[0].number(), pair[1].number());
        }
        let server = |index: usize, client: Port| {
            let own = folder.path(&index.to_string());
            let settings = format!(
                "tickTime=500\ninitLimit=20\nsyncLimit=10\nminSessionTimeout=1000\ndataDir={own}\nclientPort={port}\n\
                 clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{members}",
                own = own.display(),
                port = client.number(),
            );
            folder.write(&format!("{index}/zoo.cfg"), &settings);
            folder.write(&format!("{index}/myid"), &index.to_string());
            let mark = vec![("TEST_SCRATCH".to_owned(), folder.mark().to_owned())];
            let arguments = vec![own.display().to_string()];
            (Server::new(program.clone(), arguments, mark, folder.path(&format!("{index}.log"))), client)
        };
        let nodes = clients.into_iter().enumerate().map(|(index, client)| server(index, client)).collect();
        let mut ensemble = Self { nodes, _ports: ports, _folder: folder };
        ensemble.nodes.iter_mut().for_each(|(server, _)| server.start());
        ensemble.wait();
        Some(ensemble)
    }

    /// `127.0.0.1:…,127.0.0.1:…`.
    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|(_, port)| format!("127.0.0.1:{}", port.number())).collect();
        hosts.join(",")
    }

    /// Those with the folder of a cluster's masters: `zk://…/mesos`.
    pub(crate) fn url(&self) -> String {
        format!("zk://{}/mesos", self.hosts())
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].0.kill();
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, index: usize) {
        self.nodes[index].0.start();
    }

    /// How many nodes there are, up or down.
    pub(crate) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node that leads the ensemble; the only one counts.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |port: &Port| {
            Self::ask(port, "srvr")
                .is_some_and(|text| text.contains("Mode: leader") || text.contains("Mode: standalone"))
        };
        self.nodes.iter().position(|(_, port)| leads(port))
    }

    /// Waits until every node that is up serves.
    pub(crate) fn wait(&self) {
        for (server, port) in self.nodes.iter().filter(|(server, _)| server.is_up()) {
            let serves = || Self::ask(port, "srvr").filter(|text| text.contains("Mode: "));
            wait_until_blocking(GENEROUS, &format!("ZooKeeper serves:\n{}", server.log()), serves);
        }
    }

    fn ask(port: &Port, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port.number())).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}
