// Tags sounds with an exported model, chunk by chunk; prints what the folder's run.py prints.
//
//     sat-jax export --opset 22 listener
//     g++ -O2 -std=c++17 tag.cpp $(pkg-config --cflags --libs libonnxruntime sndfile) -o tag
//     ./tag listener sound.wav
//     arecord -q -f S16_LE -r 16000 | ./tag listener -
//
// Debian 13: apt-get install g++ pkg-config libonnxruntime-dev libsndfile1-dev nlohmann-json3-dev
// Its onnxruntime 1.21 takes operator sets up to 22.
//
// "-" is standard input: mono 16-bit PCM at the model's rate. PCM and state.bin are little-endian,
// like the processors that this is for. The file belongs to sat-jax and has its licence, Apache-2.0.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#include <sndfile.hh>

namespace {

constexpr std::size_t kTags = 5;      // Printed for each chunk.
constexpr sf_count_t kBlock = 8192;  // Frames that are read from a file at a time.

std::ifstream open_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + " cannot be read: name an exported folder");
  return file;
}

// The exported step: samples and state in, probabilities and the next state out.
class Step {
 public:
  // The samples, then the arrays of the state; after a run the probabilities, then the next state.
  using Values = std::vector<Ort::Value>;

  explicit Step(const std::filesystem::path& folder) : folder_(folder) {
    about_ = nlohmann::json::parse(open_file(folder / "export.json"));
    if (about_.at("kind") != "onnx")
      throw std::runtime_error(folder.string() + " is not ONNX: export it with --format onnx");
    if (about_.at("format") != 1)
      throw std::runtime_error(folder.string() + " is of a newer sat-jax: take its tag.cpp");
    for (const std::string name : about_["inputs"]) inputs_.push_back(name);
    for (const std::string name : about_["outputs"]) outputs_.push_back(name);
    hop = about_["hop"];
    window = about_["window"];
    margin = about_["margin"];
    sample_rate = about_["sample_rate"];
    for (const auto& label : about_["labels"]) labels.push_back(label["name"]);

    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    const std::string model = (folder / std::string(about_["model_file"])).string();
    try {
      session_ = Ort::Session(env_, model.c_str(), options);
    } catch (const Ort::Exception& error) {
      throw std::runtime_error(model + " cannot be loaded (" + error.what() +
                               "): export it again, for an older onnxruntime with a lower --opset");
    }
  }

  // Returns the state of a new stream, behind room for its samples.
  Values new_state() const {
    Values values;
    values.emplace_back(nullptr);
    Ort::AllocatorWithDefaultOptions allocator;
    std::ifstream file = open_file(folder_ / std::string(about_["state_file"]));
    for (const auto& array : about_["state"]) {
      std::vector<std::int64_t> shape{1};  // One stream.
      for (const std::int64_t size : array["shape"]) shape.push_back(size);
      const auto type = array["dtype"] == "int32" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
                                                  : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      auto value = Ort::Value::CreateTensor(allocator, shape.data(), shape.size(), type);
      const auto count = value.GetTensorTypeAndShapeInfo().GetElementCount();
      file.read(static_cast<char*>(value.GetTensorMutableRawData()), 4 * count);
      values.push_back(std::move(value));
    }
    if (!file || file.peek() != EOF)
      throw std::runtime_error(folder_.string() + " has the state of another model, or part of one: "
                               "export it again");
    return values;
  }

  // Scores a window; the state becomes the next one.
  std::vector<float> operator()(float* samples, Values& values) {
    const std::int64_t shape[] = {1, static_cast<std::int64_t>(window)};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
    values[0] = Ort::Value::CreateTensor(memory, samples, window, shape, 2);
    values = session_.Run(Ort::RunOptions{nullptr}, pointers(inputs_).data(), values.data(),
                          values.size(), pointers(outputs_).data(), outputs_.size());
    const float* probs = values[0].GetTensorData<float>();
    return {probs, probs + labels.size()};
  }

  std::size_t hop, window, margin;
  int sample_rate;
  std::vector<std::string> labels;

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> found;
    for (const auto& name : names) found.push_back(name.c_str());
    return found;
  }

  std::filesystem::path folder_;
  nlohmann::json about_;
  std::vector<std::string> inputs_, outputs_;
  Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "tag"};
  Ort::Session session_{nullptr};
};

struct Chunk {
  double start, end;  // Seconds.
  std::vector<float> probs;
};

// One stream: takes any number of samples, and gives the chunks that they complete.
class Stream {
 public:
  // The window begins `margin` samples before its chunk.
  explicit Stream(Step& step)
      : step_(step), values_(step.new_state()), samples_(step.margin), started_(!step.margin) {}

  std::vector<Chunk> push(const std::vector<float>& samples) {
    samples_.insert(samples_.end(), samples.begin(), samples.end());
    if (!started_ && samples_.size() > 2 * step_.margin) {
      // The spectrogram of the first chunk begins with the mirror image of its samples.
      const auto begin = samples_.begin() + step_.margin + 1;
      std::reverse_copy(begin, begin + step_.margin, samples_.begin());
      started_ = true;
    }
    std::vector<Chunk> chunks;
    std::size_t at = 0;
    for (; started_ && samples_.size() - at >= step_.window; at += step_.hop) {
      const double start = seconds(chunks_ * step_.hop);
      chunks.push_back({start, seconds(++chunks_ * step_.hop), step_(&samples_[at], values_)});
    }
    samples_.erase(samples_.begin(), samples_.begin() + at);
    return chunks;
  }

  // Fills the last chunk up with silence, if one began.
  std::vector<Chunk> finish() {
    if (samples_.size() <= step_.margin) return {};
    const double end = seconds(chunks_ * step_.hop + samples_.size() - step_.margin);
    std::vector<Chunk> chunks = push(std::vector<float>(step_.window));
    chunks.resize(1);
    chunks[0].end = std::min(chunks[0].end, end);
    return chunks;
  }

 private:
  double seconds(std::size_t samples) const {
    return static_cast<double>(samples) / step_.sample_rate;
  }

  Step& step_;
  Step::Values values_;
  std::vector<float> samples_;
  bool started_;
  std::size_t chunks_ = 0;
};

// Calls `use` with each block of a sound's mono samples.
template <typename Use>
void read_blocks(const std::string& path, int rate, Use use) {
  std::vector<float> mono;
  if (path == "-") {
    std::vector<std::int16_t> pcm(rate / 5);
    while (const auto count = std::fread(pcm.data(), sizeof pcm[0], pcm.size(), stdin)) {
      mono.resize(count);
      std::transform(pcm.begin(), pcm.begin() + count, mono.begin(),
                     [](std::int16_t sample) { return sample / 32768.0f; });
      use(mono);
    }
    return;
  }
  SndfileHandle file(path);
  if (file.error())
    throw std::runtime_error(path + " cannot be read (" + file.strError() + "): try ffmpeg -i " +
                             path + " sound.wav");
  if (file.samplerate() != rate)
    throw std::runtime_error(path + " has " + std::to_string(file.samplerate()) +
                             " samples a second, the model " + std::to_string(rate) +
                             ": try ffmpeg -i " + path + " -ar " + std::to_string(rate) +
                             " sound.wav");
  const int channels = file.channels();
  std::vector<float> frames(kBlock * channels);
  while (const auto count = file.readf(frames.data(), kBlock)) {
    mono.resize(count);
    for (sf_count_t i = 0; i < count; ++i) {
      const float* frame = &frames[i * channels];
      mono[i] = std::accumulate(frame, frame + channels, 0.0f) / channels;
      if (!std::isfinite(mono[i])) throw std::runtime_error(path + " has a sample that is NaN or Inf");
    }
    use(mono);
  }
}

// Formats a time as Python does: 0.0, 1.92, 2.0.
std::string time_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", seconds);
  std::string digits = text;
  const auto last = digits.find_last_not_of('0');
  digits.erase(std::max(last, digits.find('.') + 1) + 1);
  return digits;
}

void show(const std::vector<std::string>& labels, const std::vector<Chunk>& chunks) {
  for (const auto& [start, end, probs] : chunks) {
    std::vector<std::size_t> order(labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&, &probs = probs](auto a, auto b) { return probs[a] > probs[b]; });
    for (std::size_t rank = 0; rank < std::min(kTags, order.size()); ++rank) {
      const std::size_t label = order[rank];
      std::printf("[%ss]-[%ss] Topk-%zu %-30s %.4f\n", time_text(start).c_str(),
                  time_text(end).c_str(), rank + 1, labels[label].c_str(), probs[label]);
    }
    std::puts("");
    std::fflush(stdout);
  }
}

// Prints why the program ends, in one line.
int fail(std::string line) {
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "tag: %s\n", line.c_str());
  return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("name a folder and sounds: tag listener sound.wav");
  Step step(argv[1]);
  for (int i = 2; i < argc; ++i) {
    const std::string path = argv[i];
    Stream stream(step);
    if (path != "-" && !std::filesystem::is_regular_file(path))
      throw std::runtime_error(path + " is not a file");
    std::printf("===== %s =====\n", path.c_str());
    read_blocks(path, step.sample_rate, [&](const auto& samples) {
      show(step.labels, stream.push(samples));
    });
    show(step.labels, stream.finish());
  }
  if (std::fflush(stdout) || std::ferror(stdout)) throw std::runtime_error("cannot print");
} catch (const nlohmann::json::exception& error) {
  return fail(std::string(argv[1]) + "/export.json is damaged (" + error.what() + "): export it again");
} catch (const std::exception& error) {
  return fail(error.what());
}
