//! Reading what `SHOW GRANTS` prints.

use vtorc_core::preflight::Grant;

/// The grants that these lines tell of. Roles are not looked into: those that are active show by their privileges.
pub(crate) fn grants(lines: impl IntoIterator<Item = String>) -> Vec<Grant> {
    lines.into_iter().filter_map(|line| grant(&line)).collect()
}

fn grant(line: &str) -> Option<Grant> {
    let rest = line.trim().strip_prefix("GRANT ")?;
    let (privileges, rest) = rest.split_once(" ON ")?;
    let (on, _) = rest.split_once(" TO ")?;
    let privileges = privileges.split(',').map(|one| one.trim().to_ascii_uppercase()).collect();
    let on = on.trim().replace(['`', '\'', '"', '\\'], "").to_ascii_lowercase();
    Some(Grant { privileges, on })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grants_are_read_as_servers_print_them() {
        for (line, privileges, on) in [
            (
                "GRANT RELOAD, REPLICATION SLAVE ON *.* TO `o`@`%`",
                vec!["RELOAD", "REPLICATION SLAVE"],
                "*.*",
            ),
            (
                "GRANT SYSTEM_USER,XA_RECOVER_ADMIN ON *.* TO `o`@`%`",
                vec!["SYSTEM_USER", "XA_RECOVER_ADMIN"],
                "*.*",
            ),
            ("GRANT SELECT ON `\\_vt`.* TO `o`@`%`", vec!["SELECT"], "_vt.*"),
            (
                "GRANT SLAVE MONITOR ON *.* TO `o`@`%` IDENTIFIED BY PASSWORD 'x'",
                vec!["SLAVE MONITOR"],
                "*.*",
            ),
            (
                "GRANT ALL PRIVILEGES ON *.* TO 'root'@'localhost' WITH GRANT OPTION",
                vec!["ALL PRIVILEGES"],
                "*.*",
            ),
        ] {
            let privileges = privileges.into_iter().map(ToOwned::to_owned).collect();
            assert_eq!(grant(line), Some(Grant { privileges, on: on.into() }));
        }
        assert_eq!(grant("GRANT `a_role`@`%` TO `o`@`%`"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_read(line in "(GRANT )?[ -~]{0,40}( ON )?[ -~]{0,20}( TO )?[ -~]{0,9}") {
            let _ = grant(&line);
        }
    }
}
