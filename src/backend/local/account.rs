//! Whom a command runs as, where that is another account than this process's.
//!
//! The account, its group and its other groups are looked up before the fork, since the child may not; it then takes them on
//! one by one. Nobody is asked for a password: the kernel lets root do this, and nobody else.
//!
//! - **Invariant:** no number of an account is the one that the kernel takes for "leave it as it is".

use nix::unistd::{self, Group, Uid, User};

/// An account to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups that it is in.
    pub(super) groups: Vec<u32>,
    /// Its name and its home; none when nothing but a number is known of it.
    pub(super) known: Option<(String, String)>,
}

impl Account {
    /// The account of `user` or `user:group`, each a name or a number; none when that is who this process is anyway.
    ///
    /// # Errors
    /// There is no such account or group, it cannot be looked up, or this process may not become it. The text says which.
    pub(super) fn of(text: &str) -> Result<Option<Self>, String> {
        Self::seen_by(unistd::geteuid().as_raw(), unistd::getegid().as_raw(), text)
    }

    /// The same for a process of that user and group.
    fn seen_by(own_uid: u32, own_gid: u32, text: &str) -> Result<Option<Self>, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let failed = |error: nix::Error| format!("it cannot be looked up: {error}");
        let number = number(user)?;
        let found = match number {
            Some(number) => User::from_uid(Uid::from_raw(number)),
            None => User::from_name(user),
        }
        .map_err(failed)?;
        let gid = match group {
            Some(group) => Some(self::group(group)?),
            None => found.as_ref().map(|user| user.gid.as_raw()),
        };
        let (uid, gid) = match (&found, number, gid) {
            (Some(user), _, Some(gid)) => (user.uid.as_raw(), gid),
            (None, Some(uid), Some(gid)) => (uid, gid),
            (None, Some(_), None) => {
                return Err("no account has this number: give a group, too, as in `7:7`".to_owned());
            }
            _ => return Err("there is no such account on this machine".to_owned()),
        };
        if (uid, gid) == (own_uid, own_gid) {
            return Ok(None);
        }
        // A capability to change users would not do: the task is to be ended later, which is another one.
        if own_uid != 0 {
            let own = match User::from_uid(Uid::from_raw(own_uid)) {
                Ok(Some(user)) => format!("`{}`", user.name),
                _ => format!("the number {own_uid}"),
            };
            return Err(format!("only root runs commands as another, and this host runs as {own}"));
        }
        // A group that is given stands alone, as `docker run --user` has it.
        let groups = match &found {
            Some(user) if group.is_none() => groups(user)?,
            _ => vec![gid],
        };
        let known = found.map(|user| (user.name, user.dir.to_string_lossy().into_owned()));
        Ok(Some(Self { uid, gid, groups, known }))
    }
}

/// A user or group by its number; none when it is a name.
fn number(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(u32::MAX) => Err(format!("expected a number below {}, which stands for nobody, got it", u32::MAX)),
        parsed => Ok(parsed.ok()),
    }
}

fn group(text: &str) -> Result<u32, String> {
    if let Some(number) = number(text)? {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group `{text}` on this machine")),
        Err(error) => Err(format!("its group cannot be looked up: {error}")),
    }
}

#[cfg(target_os = "linux")]
fn groups(user: &User) -> Result<Vec<u32>, String> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| "its name has a zero byte".to_owned())?;
    let all = unistd::getgrouplist(&name, user.gid).map_err(|error| format!("its groups cannot be had: {error}"))?;
    Ok(all.into_iter().map(unistd::Gid::as_raw).collect())
}

/// Elsewhere the system does it when the group is taken on, or not at all.
#[cfg(not(target_os = "linux"))]
fn groups(user: &User) -> Result<Vec<u32>, String> {
    Ok(vec![user.gid.as_raw()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_root(text: &str) -> Result<Option<Account>, String> {
        Account::seen_by(0, 0, text)
    }

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let own = User::from_uid(unistd::geteuid()).unwrap().unwrap();
        assert_eq!(Account::of(&own.name), Ok(None), "this is who we are");
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let found = as_root("nobody").unwrap().unwrap();
        assert_eq!((found.uid, found.gid), (nobody.uid.as_raw(), nobody.gid.as_raw()));
        assert!(found.groups.contains(&found.gid), "{found:?}");
        assert_eq!(found.known.as_ref().map(|(name, _)| name.as_str()), Some("nobody"));
        assert_eq!(as_root(&nobody.uid.as_raw().to_string()), Ok(Some(found)));
        let numbers = Account { uid: 987_654, gid: 7, groups: vec![7], known: None };
        assert_eq!(as_root("987654:7"), Ok(Some(numbers)));
        let root = as_root("nobody:root").unwrap().unwrap();
        assert_eq!((root.gid, root.groups), (0, vec![0]), "a group that is given stands alone");
        for (text, why) in [
            ("987654", "no account has this number"),
            ("no such one", "no such account"),
            ("nobody:no such one", "no group `no such one`"),
            ("", "no such account"),
            ("\0", "no such account"),
            ("4294967295:7", "expected a number below 4294967295"),
            ("7:4294967295", "expected a number below 4294967295"),
        ] {
            let error = as_root(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn only_root_becomes_another() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        let refused = "only root runs commands as another, and this host runs as";
        assert_eq!(Account::seen_by(uid, gid, "nobody"), Ok(None), "this is who it is");
        assert_eq!(Account::seen_by(uid, gid, "root"), Err(format!("{refused} `nobody`")));
        assert_eq!(Account::seen_by(uid, gid, "nobody:root"), Err(format!("{refused} `nobody`")));
        assert_eq!(Account::seen_by(987_654, 7, "root"), Err(format!("{refused} the number 987654")));
        assert_eq!(Account::seen_by(987_654, 7, "987654:7"), Ok(None));
    }
}
