//! Which addresses the service calls (docs/api.md, "Outgoing calls"). The rule is asked for each address that is about to be connected to, so
//! that no name can lead elsewhere between a check and its use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// What operators chose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Networks that are called although they would not be otherwise.
    pub allowed: Vec<IpNet>,
    /// Whether private networks are not called. By default they are: this service runs in plants.
    pub deny_private: bool,
    /// Where the service itself listens; never called.
    pub own: Vec<SocketAddr>,
}

impl Rules {
    /// Whether an address may be called.
    #[must_use]
    pub fn allow(&self, address: SocketAddr) -> bool {
        let ip = plain(address.ip());
        if is_of_another_protocol(address.port()) || self.own.iter().any(|own| own.port() == address.port() && is_own(plain(own.ip()), ip))
        {
            return false;
        }
        self.allowed.iter().any(|network| network.contains(&ip)) || !(is_special(ip) || self.deny_private && is_private(ip))
    }
}

/// Whether a listener on `own` answers at `ip`. One on every address answers at whatever is this machine's.
fn is_own(own: IpAddr, ip: IpAddr) -> bool {
    own == ip || own.is_unspecified() && (ip.is_loopback() || ip.is_unspecified() || is_this_machines(ip))
}

/// Whether an address is one of this machine's: the kernel would then talk to it from itself. Asking sends nothing.
fn is_this_machines(ip: IpAddr) -> bool {
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let route = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9)).and_then(|()| socket.local_addr()));
    route.is_ok_and(|from| from.ip() == ip)
}

/// Ports of servers that would read an HTTP request as commands of their own: the "bad ports" of the Fetch standard, and stores.
fn is_of_another_protocol(port: u16) -> bool {
    const FETCH: [u16; 82] = [
        0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
        115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563,
        587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669,
        6679, 6697,
    ];
    const STORES: [u16; 5] = [3306, 5432, 6379, 11211, 27017];
    FETCH.contains(&port) || STORES.contains(&port)
}

/// The IPv4 address that is written in an IPv6 one, in each way that leads there: mapped, compatible, translated (RFC 2765), NAT64
/// (RFC 6052), 6to4 (RFC 3056).
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let embedded = |at: usize| {
        let octets = v6.octets();
        octets.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok()).map_or(ip, |four| IpAddr::V4(Ipv4Addr::from(four)))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(12),
        [0x2002, ..] => embedded(2),
        _ => ip,
    }
}

/// Addresses that are this machine's or this link's, that clouds keep secrets at, or that no host has.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.octets()[0] >= 240
                // The metadata services of some clouds.
                || [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)].contains(&ip)
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                // Site-local, long deprecated.
                || ip.segments()[0] & 0xffc0 == 0xfec0
                // Teredo and NAT64 with a prefix of one's own (RFC 8215) carry IPv4 addresses that cannot be told from here.
                || ip.segments()[..2] == [0x2001, 0]
                || ip.segments()[..3] == [0x64, 0xff9b, 1]
                // The metadata services of some clouds.
                || ip.segments()[..2] == [0xfd00, 0xec2]
                || ip == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
                || ip == Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        // 100.64.0.0/10 is shared address space (RFC 6598).
        IpAddr::V4(ip) => ip.is_private() || ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::default()
    }

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 443)
    }

    #[test]
    fn what_is_near_is_never_called_in_whatever_way_it_is_written() {
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "::ffff:0:127.0.0.1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1:7f00:0:100::",
            "2002:7f00:1::",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:0:1::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ] {
            assert!(!rules().allow(at(ip)), "{ip}");
        }
    }

    #[test]
    fn private_networks_are_called_unless_an_operator_forbids_it() {
        for ip in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"] {
            assert!(rules().allow(at(ip)), "{ip}");
            assert!(!Rules { deny_private: true, ..rules() }.allow(at(ip)), "{ip}");
        }
        for ip in ["93.184.215.14", "2606:2800:21f::1", "172.32.0.1", "100.128.0.1"] {
            assert!(Rules { deny_private: true, ..rules() }.allow(at(ip)), "{ip}");
        }
    }

    #[test]
    fn an_operator_allows_networks_and_never_our_own_listeners() {
        let own = vec!["127.0.0.1:50051".parse().unwrap(), "0.0.0.0:9464".parse().unwrap()];
        let rules = Rules { allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()], own, ..rules() };
        assert!(rules.allow("127.0.0.1:9999".parse().unwrap()));
        assert!(rules.allow("[::1]:9999".parse().unwrap()));
        for own in ["127.0.0.1:50051", "[::ffff:127.0.0.1]:50051", "127.0.0.1:9464", "[::1]:9464", "127.9.9.9:9464"] {
            assert!(!rules.allow(own.parse().unwrap()), "{own}");
        }
        assert!(!rules.allow("169.254.169.254:80".parse().unwrap()));
    }

    #[test]
    fn ports_of_other_protocols_are_never_called() {
        for port in [22, 25, 6379] {
            let allowed = vec!["93.184.215.14/32".parse().unwrap()];
            assert!(!Rules { allowed, ..rules() }.allow(SocketAddr::new("93.184.215.14".parse().unwrap(), port)), "{port}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_known_at_each_address_of_this_machine() {
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        // The address that this machine would call others from. Nothing is sent.
        let Ok(own) = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()) else { return };
        let rules = Rules { own: vec!["0.0.0.0:50051".parse().unwrap()], ..rules() };
        assert!(!rules.allow(SocketAddr::new(own.ip(), 50051)), "{own}");
    }
}
