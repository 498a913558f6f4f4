//! Processor time: how much of it this process may take.

use super::{ControlGroup, Files};

/// Cores' worth of time: the least quota on the way up, at most all the cores that the process may run on.
pub(super) fn allowance(files: &Files, cores: u32) -> f64 {
    let groups = files.groups("cpu");
    groups.iter().filter_map(|group| quota(files, group)).fold(f64::from(cores), f64::min)
}

/// Quota over period, both in microseconds: version 2 `max 100000` or `50000 100000`; version 1 in two files, -1 for none.
fn quota(files: &Files, group: &ControlGroup) -> Option<f64> {
    let (quota, period) = if group.unified {
        let text = files.in_group(group, "cpu.max")?;
        let mut fields = text.split_ascii_whitespace();
        (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?)
    } else {
        let number = |file| files.in_group(group, file)?.trim().parse::<f64>().ok();
        (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
    };
    (quota > 0.0 && period > 0.0).then(|| quota / period).filter(|cores| cores.is_finite())
}
