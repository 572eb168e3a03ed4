//! The header `tracestate`: what others know of the trace, kept as it is.

/// Members of a list.
const MEMBERS_MAX: usize = 32;
/// What everybody must pass on; the last members of a longer list go.
const LEN_MAX: usize = 512;
const KEY_MAX: usize = 256;
const TENANT_MAX: usize = 241;
const SYSTEM_MAX: usize = 14;
const VALUE_MAX: usize = 256;

/// The list without blanks around its members and without empty ones, at most 512 bytes of it; `None`
/// when it breaks the rules, or nothing is left.
pub(super) fn tidy(text: &str) -> Option<String> {
    let blank = |c| matches!(c, ' ' | '\t');
    let members = text.split(',').map(|member| member.trim_matches(blank));
    let members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    if members.len() > MEMBERS_MAX {
        return None;
    }
    let mut keys = Vec::with_capacity(members.len());
    let mut list = String::new();
    let mut is_full = false;
    for member in members {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        let comma = usize::from(!list.is_empty());
        is_full |= list.len() + comma + member.len() > LEN_MAX;
        if !is_full {
            list.push_str(if comma == 1 { "," } else { "" });
            list.push_str(member);
        }
    }
    (!list.is_empty()).then_some(list)
}

fn is_key(key: &str) -> bool {
    let is_lower = |byte: &u8| byte.is_ascii_lowercase();
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_inner = |byte: &u8| is_first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/');
    let part = |text: &str, first: &dyn Fn(&u8) -> bool, most: usize| {
        text.as_bytes().first().is_some_and(first)
            && text.len() <= most
            && text.bytes().all(|byte| is_inner(&byte))
    };
    match key.split_once('@') {
        None => part(key, &is_lower, KEY_MAX),
        Some((tenant, system)) => {
            part(tenant, &is_first, TENANT_MAX) && part(system, &is_lower, SYSTEM_MAX)
        }
    }
}

fn is_value(value: &str) -> bool {
    let is_allowed = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty()
        && value.len() <= VALUE_MAX
        && value.bytes().all(is_allowed)
        && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_recommendation_allows_is_kept_and_nothing_else() {
        let kept = |text: &str, list: &str| assert_eq!(tidy(text).as_deref(), Some(list), "{text}");
        kept("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        kept(" a=1 ,\tb=2,,", "a=1,b=2");
        kept("fw529a3039@dt=FfAw~ -", "fw529a3039@dt=FfAw~ -");
        kept("0tenant@x=1", "0tenant@x=1");
        kept(&format!("{}=1", "k".repeat(256)), &format!("{}=1", "k".repeat(256)));
        let long = "v".repeat(250);
        kept(&format!("a={long},b={long},c=12345678"), &format!("a={long},b={long}"));

        for text in [
            "", ",", " ", "a", "a=", "=1", "A=1", "1=1", "a=1,a=2", "a=b=c", "a=\x7f", "a=é",
            "@b=1", "a@=1", "a@1b=1", "a@b@c=1", "a b=1",
        ] {
            assert_eq!(tidy(text), None, "{text:?}");
        }
        assert_eq!(tidy(&format!("{}=1", "k".repeat(257))), None);
        assert_eq!(tidy(&format!("a={}", "v".repeat(257))), None);
        assert_eq!(tidy(&format!("a@{}=1", "s".repeat(15))), None);
        let many = |count| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        assert!(tidy(&many(32)).is_some());
        assert_eq!(tidy(&many(33)), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_short_and_kept_again(text in "[a-c@=, ~_é\t]{0,60}") {
            if let Some(list) = tidy(&text) {
                prop_assert!(list.len() <= LEN_MAX);
                prop_assert_eq!(tidy(&list), Some(list));
            }
        }
    }
}
