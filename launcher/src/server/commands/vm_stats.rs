//! `GetVMStats`: what monitoring wants to know of a machine and of its guest, in one answer.
//!
//! What the guest tells is passed on as its agent gave it (QEMU guest agent protocol, the value of `return`), cut to a
//! sane length. A part that was not wished for, or whose command the agent lacks, is absent.

use std::time::Duration;

use proto::cmd::v1 as wire;
use proto::cmd::v1::{VmStatsRequest, VmStatsResponse};

use super::{CallError, Commands, outcome};
use crate::agent::{Figure, Question};

/// How long the guest has for what it was not asked yet: clients wait five seconds for all of the answer.
const GUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// What the agent is asked, whether a request wishes it, and where the answer goes.
type Part = (
    Question,
    fn(&VmStatsRequest) -> bool,
    fn(&mut VmStatsResponse) -> &mut Option<wire::Response>,
);

#[rustfmt::skip]
const PARTS: [Part; 14] = [
    (Question::Load, |it| it.guest_get_load.is_some(), |it| &mut it.guest_get_load),
    (Question::CpuStats, |it| it.guest_get_cpu_stats.is_some(), |it| &mut it.guest_get_cpu_stats),
    (Question::DiskStats, |it| it.guest_get_disk_stats.is_some(), |it| &mut it.guest_get_disk_stats),
    (Question::Time, |it| it.guest_get_time.is_some(), |it| &mut it.guest_get_time),
    (Question::Vcpus, |it| it.guest_get_vcpus.is_some(), |it| &mut it.guest_get_vcpus),
    (Question::MemoryBlockInfo, |it| it.guest_get_memory_block_info.is_some(), |it| &mut it.guest_get_memory_block_info),
    (Question::Users, |it| it.guest_get_users.is_some(), |it| &mut it.guest_get_users),
    (Question::Os, |it| it.guest_get_os_info.is_some(), |it| &mut it.guest_get_os_info),
    (Question::Disks, |it| it.guest_get_disks.is_some(), |it| &mut it.guest_get_disks),
    (Question::HostName, |it| it.guest_get_host_name.is_some(), |it| &mut it.guest_get_host_name),
    (Question::Timezone, |it| it.guest_get_timezone.is_some(), |it| &mut it.guest_get_timezone),
    (Question::Routes, |it| it.guest_network_get_route.is_some(), |it| &mut it.guest_network_get_route),
    (Question::Interfaces, |it| it.guest_network_get_interfaces.is_some(), |it| &mut it.guest_network_get_interfaces),
    (Question::MemoryBlocks, |it| it.guest_get_memory_blocks.is_some(), |it| &mut it.guest_get_memory_blocks),
];

/// Returns what is wished for; a part that fails leaves the others alone.
pub(super) async fn answer(commands: &Commands, wished: &VmStatsRequest) -> VmStatsResponse {
    let mut response = VmStatsResponse {
        response: Some(outcome(Ok(()))),
        domain_stats: wished.domain_stats.map(|_| commands.stats()),
        ..VmStatsResponse::default()
    };
    let parts = PARTS.iter().filter(|(_, is_wished, _)| is_wished(wished));
    let questions: Vec<Question> = parts.clone().map(|(question, ..)| *question).collect();
    if questions.is_empty() {
        return response;
    }
    let told = commands.ask_agent(move |agent| {
        let figures = agent.figures(&questions, GUEST_TIMEOUT)?;
        Ok((agent.report().version, figures))
    });
    let (version, figures) = match told.await {
        Ok((version, figures)) => (version, figures.into_iter().map(shown).collect()),
        Err(error) => (None, vec![Some(outcome(Err(error))); PARTS.len()]),
    };
    response.guest_agent_version = Some(success(version.unwrap_or_default()));
    for ((.., place), figure) in parts.zip(figures) {
        *place(&mut response) = figure;
    }
    response
}

fn success(message: String) -> wire::Response {
    wire::Response {
        success: true,
        message,
    }
}

fn shown(figure: Figure) -> Option<wire::Response> {
    match figure {
        Ok(text) => text.map(|text| success(text.to_string())),
        Err(error) => Some(outcome(Err(CallError::Figure(error)))),
    }
}
